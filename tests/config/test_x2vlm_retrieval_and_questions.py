"""Recipes of retrieval and questions: what was published, and models of their size."""

from pathlib import Path

import pytest
import torch

from xmodaler.config import load_config
from xmodaler.datasets.tasks import task_files
from xmodaler.model_zoo.paths import config_root
from xmodaler.modeling import add_config, build_model
from xmodaler.optim.build import build_optimizer

FOLDERS = ("retrieval", "vqa", "video_qa", "multilingual")
CONFIGS = [
    f"{folder}/{path.stem}"
    for folder in FOLDERS
    for path in sorted(Path(f"{config_root()}/x2vlm/{folder}").glob("*.yaml"))
    if path.stem.endswith(("_base", "_large")) or folder == "multilingual"
]


def loaded(name, *overrides):
    return load_config(f"{config_root()}/x2vlm/{name}.yaml", overrides, add_config)


def on_paper(cfg):
    with torch.device("meta"):
        return build_model(cfg)


def test_there_is_a_recipe_for_every_task():
    assert len(CONFIGS) == 6 + 2 + 4 + 5


@pytest.mark.parametrize("name", CONFIGS)
def test_models_are_of_their_size(name):
    cfg = loaded(name, "MODEL.DEVICE", "meta")
    model = on_paper(cfg)
    width = 1024 if name.endswith("large") else 768
    assert model.encoder.fusion_layers[0].self_attn.self.query.weight.shape == (width, width)
    assert model.token_embed.embeddings.weight.shape[0] == cfg.MODEL.VOCAB_SIZE
    parts = {"retrieval": "X2VLMRetrieval", "vqa": "X2VLMVQA", "video_qa": "X2VLMClassifier"}
    expected = "X2VLMVQA" if name.endswith("xgqa") else "X2VLMRetrieval"
    assert type(model).__name__ == parts.get(name.split("/")[0], expected)


@pytest.mark.parametrize(
    ("name", "batch", "steps", "share", "rates"),
    [
        ("base", 8, 1, 0.1, {"visual": 2e-5, "text_decoder": 8e-5, "encoder": 4e-5}),
        ("large", 2, 2, 0.05, {"visual": 2e-5, "text_decoder": 8e-5, "encoder": 2e-5}),
    ],
)
def test_the_released_recipes_of_vqa(name, batch, steps, share, rates):
    cfg = loaded(f"vqa/vqa2_{name}", "MODEL.DEVICE", "meta")
    loader, solver, node = cfg.DATALOADER, cfg.SOLVER, cfg.MODEL.X2VLM
    assert (batch, steps, 768) == (loader.TRAIN_BATCH_SIZE, solver.ACCUM_STEPS, loader.IMAGE_SIZE)
    assert (solver.EPOCH, solver.BASE_LR, solver.WEIGHT_DECAY) == (5, 4e-5, 0.01)
    assert share == cfg.LR_SCHEDULER.WARMUP_SHARE and cfg.MODEL.MAX_SEQ_LEN == 40
    assert (node.TOP_K, node.DECODER_LAYERS, node.FIRST_WORD_TWICE) == (128, 6, True)
    assert (loader.TASK.MAX_WORDS, loader.TASK.TEST_MAX_WORDS) == (30, 50)
    assert len(task_files(loader.TRAIN_ANNFILE)) == 3
    model = on_paper(cfg)
    names = {id(weight): key for key, weight in model.named_parameters()}
    found = {}
    for group in build_optimizer(cfg, model).param_groups:
        for weight in group["params"]:
            found.setdefault(names[id(weight)].split(".")[0], set()).add(group["lr"])
    assert found["visual_embed"] == {rates["visual"]}
    assert found["text_decoder"] == {rates["text_decoder"]}
    assert found["encoder"] == found["token_embed"] == {rates["encoder"]}


@pytest.mark.parametrize(
    ("name", "frames", "size", "labels"), [("msrvtt", 5, 320, 1500), ("msvd", 8, 224, 1000)]
)
def test_what_is_published_of_video_questions(name, frames, size, labels):
    cfg = loaded(f"video_qa/{name}_qa_base")
    loader = cfg.DATALOADER
    assert (frames, size, True) == (loader.MAX_FEAT_NUM, loader.IMAGE_SIZE, loader.TASK.VIDEO)
    assert labels == cfg.MODEL.X2VLM.NUM_LABELS


@pytest.mark.parametrize(("name", "best"), [("coco", 80), ("flickr30k", 32), ("msrvtt", 32)])
def test_what_is_published_of_retrieval(name, best):
    cfg = loaded(f"retrieval/{name}_large")
    assert best == cfg.INFERENCE.RERANK and cfg.DATALOADER.IMAGE_SIZE == 384
    assert cfg.LOSSES.NAMES == ["ImageTextContrastive", "ImageTextMatching"]


@pytest.mark.parametrize(
    ("name", "languages"),
    [
        ("multi30k", "en de fr cs"),
        ("coco", "en zh ja"),
        ("xflickrco", "de en es id ja ru tr zh"),
        ("xgqa", "en bn de id ko pt ru zh"),
        ("wit", "ar bg da el en et id ja ko tr vi"),
    ],
)
def test_languages_have_files_of_their_own(name, languages, monkeypatch):
    monkeypatch.setenv("XMODALER_DATA", "/data")
    cfg = loaded(f"multilingual/{name}")
    files = task_files(cfg.DATALOADER.TEST_ANNFILE)
    assert [file.name for file in files] == languages.split()
    assert all(file.path.startswith("/data/") and " " not in file.path for file in files)
    assert cfg.MODEL.VOCAB_SIZE == 250002
    if name == "xgqa":
        assert cfg.INFERENCE.TEST_ANNFILE == cfg.DATALOADER.TEST_ANNFILE
