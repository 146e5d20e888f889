"""Output folders of tiny untrained models: captioners, and models that understand."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from xmodaler.checkpoint import XmodalerCheckpointer
from xmodaler.config import configurable, load_config
from xmodaler.modeling import add_config, build_model
from xmodaler.modeling.embedding.build import EMBEDDING_REGISTRY

ROOT = Path(__file__).resolve().parents[2]
WORDS = ["a", "the", "red", "blue", "ball", "cube", "lies", "on", "grass"]
WIDTH, SIZE = 6, 32


class GridOfPixels(nn.Module):
    """Mean colour of the cells of a 4 x 4 grid, as features: the least that reads pictures."""

    reads_pictures = True

    @configurable
    def __init__(self, *, out_dim):
        super().__init__()
        self.project = nn.Linear(3, out_dim)

    @classmethod
    def from_config(cls, cfg):
        return {"out_dim": cfg.MODEL.VISUAL_EMBED.OUT_DIM}

    def forward(self, batched_inputs):
        cells = nn.functional.adaptive_avg_pool2d(batched_inputs["IMAGES"].float() / 255, 4)
        return {"ATT_FEATS": self.project(cells.flatten(2).transpose(1, 2)) * 8}


if GridOfPixels.__name__ not in EMBEDDING_REGISTRY:
    EMBEDDING_REGISTRY.register(GridOfPixels)


def make_run(folder, base="updown/updown.yaml", **changes):
    """An output folder as a training leaves it, but for the training."""
    settings = {
        "SEED": 1,
        "MODEL.DEVICE": "cpu",
        "MODEL.VOCAB_SIZE": len(WORDS) + 1,
        "MODEL.MAX_SEQ_LEN": 7,
        "MODEL.DECODER_DIM": 16,
        "MODEL.TOKEN_EMBED.DIM": 16,
        "MODEL.VISUAL_EMBED.IN_DIM": WIDTH,
        "MODEL.VISUAL_EMBED.OUT_DIM": 16,
        **({"MODEL.UPDOWN.ATT_EMBED_SIZE": 8} if base.startswith("updown") else {}),
        "DATALOADER.IMAGE_SIZE": SIZE,
        "INFERENCE.VOCAB": str(folder / "gone.txt"),
        **changes,
    }
    overrides = [part for pair in settings.items() for part in pair]
    cfg = load_config(str(ROOT / "configs" / "image_caption" / base), overrides, add_config)
    torch.manual_seed(5)
    model = build_model(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that the words depend on the picture
        model.predictor.logits.bias[0] -= 4  # and sentences have some
    XmodalerCheckpointer(model, str(folder)).save("model_final")
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "vocabulary.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return folder


@pytest.fixture(scope="session")
def feature_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("features"))


@pytest.fixture(scope="session")
def picture_run(tmp_path_factory):
    return make_run(
        tmp_path_factory.mktemp("pictures"), **{"MODEL.VISUAL_EMBED.NAME": "GridOfPixels"}
    )


@pytest.fixture(scope="session")
def write_run():
    """The function that writes an output folder with changes to the config."""
    return make_run


PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "##s", "?", ".", *WORDS]
PIECES += ["what", "who", "is", "why", "how", "many", "of", "and", "casey", "because", "smile"]
ANSWERS = ["red", "blue", "ball", "cube", "2"]
TASKS = {
    "vqa": ("vqa/{}/vqa.yaml", {"MODEL.MM_PREDICTOR.LABELS_NUM": len(ANSWERS)}),
    "vcr": ("vcr/{}/vcr.yaml", {"MODEL.MAX_SEQ_LEN": 12}),
    "retrieval": ("flickr30k_retrieval/{}/flickr30k_retrieval.yaml", {}),
}


def make_understanding_run(folder, task, family="uniter", **changes):
    """An output folder of a model that understands, on features of width 6 unless changed."""
    base, own = TASKS[task]
    bert = {"HIDDEN_SIZE": 16, "NUM_ATTENTION_HEADS": 2, "INTERMEDIATE_SIZE": 24}
    layers = ("NUM_HIDDEN_LAYERS", "V_NUM_HIDDEN_LAYERS")
    if (task, family) != ("retrieval", "tden"):  # which has neither
        layers += ("NUM_UNDERSTANDING_LAYERS", "NUM_GENERATION_LAYERS")
    pooler = {
        "MODEL.MM_PREDICTOR.POOLER_INPUT_SIZE": 16,
        "MODEL.MM_PREDICTOR.POOLER_OUTPUT_SIZE": 8,
    }
    settings = {
        "SEED": 1,
        "MODEL.DEVICE": "cpu",
        "MODEL.VOCAB_SIZE": len(PIECES),
        "MODEL.TOKEN_EMBED.DIM": 16,
        "MODEL.VISUAL_EMBED.IN_DIM": WIDTH,
        "MODEL.VISUAL_EMBED.OUT_DIM": 16,
        **{f"MODEL.BERT.{name}": value for name, value in bert.items()},
        **{f"MODEL.BERT.{name}": 1 for name in layers if family != "uniter"},
        "MODEL.BERT.NUM_HIDDEN_LAYERS": 1,
        **({} if family == "uniter" else pooler),
        "DATALOADER.IMAGE_SIZE": SIZE,
        "DATALOADER.MAX_FEAT_NUM": 6,
        **own,
        **changes,
    }
    overrides = [part for pair in settings.items() for part in pair]
    path = ROOT / "configs" / "mm_understanding" / base.format(family)
    cfg = load_config(str(path), overrides, add_config)
    torch.manual_seed(7)
    model = build_model(cfg)
    XmodalerCheckpointer(model, str(folder)).save("model_final")
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("".join(f"{piece}\n" for piece in PIECES))
    (folder / "answers.json").write_text(json.dumps(ANSWERS))
    return folder


@pytest.fixture(scope="session")
def understanding_run(tmp_path_factory):
    """Gives the output folder of a task and family, made once."""
    made = {}

    def run(task, family="uniter", pixels=False):
        if (task, family, pixels) not in made:
            folder = tmp_path_factory.mktemp(f"{task}_{family}")
            changes = {"MODEL.VISUAL_EMBED.NAME": "GridOfPixels"} if pixels else {}
            made[task, family, pixels] = make_understanding_run(folder, task, family, **changes)
        return made[task, family, pixels]

    return run


@pytest.fixture(scope="session")
def write_understanding_run():
    """The function that writes an output folder with changes to the config."""
    return make_understanding_run


@pytest.fixture(scope="session")
def pieces():
    """The vocabulary of the tokenizer, by id."""
    return PIECES


TOWER_PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "red",
    "ball",
    "left",
    "what",
    "is",
    "two",
]
TOWER_DATASETS = {
    "X2VLMGrounding": "JsonGroundingDataset",
    "X2VLMReasoning": "JsonReasoningDataset",
    "X2VLMClassifier": "",
    "X2VLMRetrieval": "JsonRetrievalDataset",
    "entailment": "JsonEntailmentDataset",
}


def make_tower_run(folder, task, **changes):
    """The output folder of a tiny untrained model."""
    settings = {
        "MODEL.DEVICE": "cpu",
        "MODEL.META_ARCHITECTURE": "X2VLMClassifier" if task == "entailment" else task,
        "MODEL.VOCAB_SIZE": len(TOWER_PIECES),
        "MODEL.MAX_SEQ_LEN": 8,
        "MODEL.VISION.NAME": "BeitTower",
        "MODEL.VISION.SINE_POSITIONS": False,
        "MODEL.VISION.WIDTH": 16,
        "MODEL.VISION.LAYERS": 1,
        "MODEL.VISION.HEADS": 2,
        "MODEL.FUSION.MEMORY_WIDTH": 16,
        "MODEL.TOKEN_EMBED.DIM": 16,
        "MODEL.BERT.HIDDEN_SIZE": 16,
        "MODEL.BERT.NUM_ATTENTION_HEADS": 2,
        "MODEL.BERT.INTERMEDIATE_SIZE": 16,
        "MODEL.BERT.NUM_HIDDEN_LAYERS": 1,
        "DATALOADER.IMAGE_SIZE": 32,
        "DATASETS.TEST": TOWER_DATASETS[task],
        **changes,
    }
    overrides = [part for pair in settings.items() for part in pair]
    path = ROOT / "configs" / "x2vlm" / "grounding" / "flickr30k_phrases.yaml"
    cfg = load_config(str(path), ["MODEL.META_ARCHITECTURE", task, *overrides], add_config)
    torch.manual_seed(3)
    model = build_model(cfg)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that what comes out depends on what goes in
    XmodalerCheckpointer(model, str(folder)).save("model_final")
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.txt").write_text("".join(f"{piece}\n" for piece in TOWER_PIECES))
    return folder


@pytest.fixture(scope="session")
def write_tower_run():
    """The function that writes an output folder of a small X²-VLM for a task."""
    return make_tower_run
