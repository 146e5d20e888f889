"""The recipes of self-critical training, on generated data and at small widths."""

import json
import math
from pathlib import Path

import pytest

from xmodaler.config import load_config
from xmodaler.engine import build_engine
from xmodaler.modeling import add_config

ROOT = Path(__file__).resolve().parents[2]
RECIPES = [
    *sorted((ROOT / "configs" / "image_caption").glob("*/*_rl.yaml")),
    *sorted((ROOT / "configs" / "shapes").glob("*_rl.yaml")),
]
RECIPES = [path for path in RECIPES if path.stem != "tden_rl"]  # its words are word pieces
# These are read by CaptionDataset, whose files the config names one by one.
WRITTEN = [path for path in RECIPES if path.stem.startswith("flickr8k_")]
WRITTEN += [path for path in RECIPES if path.parent.name == "shapes"]
WIDTH = 32
SMALL = {
    "MODEL.DECODER_DIM": WIDTH,
    "MODEL.TOKEN_EMBED.DIM": WIDTH,
    "MODEL.VISUAL_EMBED.IN_DIM": 96,
    "MODEL.VISUAL_EMBED.OUT_DIM": WIDTH,
}
BERT = {
    "MODEL.BERT.HIDDEN_SIZE": WIDTH,
    "MODEL.BERT.NUM_ATTENTION_HEADS": 4,
    "MODEL.BERT.INTERMEDIATE_SIZE": 48,
}
# What a model has beside the common widths, and the extra files it reads.
OWN = {
    "lstm-A_rl": {"MODEL.VISUAL_EMBED.OUT_DIM": 96, "MODEL.LSTMA.ATTRIBUTE_DIM": 27},
    "attention_rl": {"MODEL.SALSTM.ATT_EMBED_SIZE": 16},
    "updown_rl": {"MODEL.UPDOWN.ATT_EMBED_SIZE": 16},
    "gcn_rl": {
        "MODEL.VISUAL_EMBED.OUT_DIM": 96,
        "MODEL.GCN.IN_DIM": 96,
        "MODEL.GCN.OUT_DIM": 96,
        "MODEL.GCN.RELATION_NUM": 13,
        "MODEL.UPDOWN.ATT_EMBED_SIZE": 16,
    },
    "transformer_rl": BERT,
    "meshed_memory_rl": {
        **BERT,
        **{
            f"MODEL.MESHEDMEORY.{part}.{key}": size
            for part in ("ENCODER", "DECODER")
            for key, size in (("DIM_MODEL", WIDTH), ("NUM_ATT_HEAD", 4), ("DIM_FEEDFORWARD", 48))
        },
    },
    "xlan_rl": {
        "MODEL.BILINEAR.DIM": WIDTH,
        "MODEL.BILINEAR.HEAD": 4,
        "MODEL.BILINEAR.ENCODE.ATT_MID_DIM": [8, 8, 8],
        "MODEL.BILINEAR.DECODE.ATT_MID_DIM": [8, 8, 8],
    },
    "cosnet_rl": {**BERT, "MODEL.VISUAL_EMBED.G_IN_DIM": 96, "MODEL.COSNET.NUM_CLASSES": 27},
}
FILES = {
    "lstm-A_rl": {"GV_FEAT_FILE": "global_features.npz", "ATTRIBUTE_FILE": "attributes.npz"},
    "gcn_rl": {"RELATION_FILE": "relations.npz"},
    "cosnet_rl": {"GV_FEAT_FILE": "global_features.npz"},
}


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Twenty pictures, and the files of a CIDEr-D reward."""
    from xmodaler.datasets.synthetic import make_shapes
    from xmodaler.preprocessing.cider_cache import write_cider_files

    folder = tmp_path_factory.mktemp("shapes") / "shapes"
    make_shapes(str(folder), size=20, seed=0)
    captions = folder / "mscoco_caption_anno_train.json"
    write_cider_files(captions, folder.parent / "gts.json", folder.parent / "cider.json")
    return folder


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_recipe_takes_a_step(recipe, shapes, tmp_path):
    name = recipe.stem.removeprefix("flickr8k_")
    regions = "" if name == "lstm-A_rl" else str(shapes / "features")
    vocabulary = (shapes / "vocabulary.txt").read_text().splitlines()
    options = {
        **SMALL,
        **OWN[name],
        **{f"DATALOADER.{key}": str(shapes / file) for key, file in FILES.get(name, {}).items()},
        "MODEL.DEVICE": "cpu",
        "MODEL.VOCAB_SIZE": len(vocabulary) + 1,
        "DATALOADER.ANNO_FOLDER": str(shapes),
        "DATALOADER.FEATS_FOLDER": regions,
        "DATALOADER.TRAIN_BATCH_SIZE": 3,
        "DATALOADER.NUM_WORKERS": 0,
        "DATASETS.VAL": "",
        "DATASETS.TEST": "",
        "SCORER.GT_PATH": str(shapes.parent / "gts.json"),
        "SCORER.CIDER_CACHED": str(shapes.parent / "cider.json"),
        "INFERENCE.VOCAB": str(shapes / "vocabulary.txt"),
        "SOLVER.BEST_METRIC": "",
        "SOLVER.MAX_ITER": 2,
        "SOLVER.WRITE_PERIOD": 1,
        "OUTPUT_DIR": str(tmp_path),
    }
    if recipe in WRITTEN:
        options["DATALOADER.TRAIN_ANNFILE"] = str(shapes / "captions_train.json")
        options["DATALOADER.TRAIN_SPLIT"] = ""
        options["DECODE_STRATEGY.SUPPRESS_WORDS"] = []  # this vocabulary has no UNK
    cfg = load_config(str(recipe), [x for pair in options.items() for x in pair], add_config)
    trainer = build_engine(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    for line in map(json.loads, (tmp_path / "metrics.json").read_text().splitlines()):
        assert math.isfinite(line["total_loss"])
        # All hypotheses of an untrained model can be worth nothing.
        assert line["total_loss"] != 0 or line["reward_spread"] == 0
        assert {"Cider", "reward", "entropy", "scoring_share"} <= line.keys()
        assert ("filter_loss" in line) == (name == "cosnet_rl")
