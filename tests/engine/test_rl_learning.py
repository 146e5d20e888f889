"""Training on rewards after training on captions makes better captions."""

import json
from pathlib import Path

import numpy as np
import pytest

from xmodaler.config import load_config
from xmodaler.engine import build_engine, default_setup
from xmodaler.modeling import add_config
from xmodaler.utils.arguments import default_argument_parser

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Pictures, and the files of a CIDEr-D reward."""
    from xmodaler.datasets.synthetic import make_shapes
    from xmodaler.preprocessing.cider_cache import write_cider_files

    folder = tmp_path_factory.mktemp("shapes") / "shapes"
    make_shapes(str(folder), size=400, seed=0)
    captions = folder / "mscoco_caption_anno_train.json"
    write_cider_files(captions, folder / "gts.json", folder / "cider.json")
    return folder


def train(shapes, output, recipe, **changes):
    """Train a config of generated pictures; the scalars of every step and the final metrics."""
    options = {
        "MODEL.DEVICE": "cpu",
        "MODEL.VOCAB_SIZE": len((shapes / "vocabulary.txt").read_text().splitlines()) + 1,
        "DATALOADER.TRAIN_ANNFILE": shapes / "captions_train.json",
        "DATALOADER.FEATS_FOLDER": shapes / "features",
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.VAL_ANNFILE": shapes / "captions_val.json",
        "DATASETS.TEST": "",
        "INFERENCE.VAL_ANNFILE": shapes / "captions_val.json",
        "INFERENCE.VOCAB": shapes / "vocabulary.txt",
        "INFERENCE.METRICS": ["CIDEr-D"],
        "DECODE_STRATEGY.BEAM_SIZE": 5,
        "SCORER.GT_PATH": shapes / "gts.json",
        "SCORER.CIDER_CACHED": shapes / "cider.json",
        "SOLVER.EVAL_PERIOD": 0,
        "SOLVER.BEST_METRIC": "",
        "SOLVER.WRITE_PERIOD": 1,
        "LR_SCHEDULER.NAME": "FixLR",
        "DATALOADER.TRAIN_BATCH_SIZE": 16,
        "SEED": 1,
        "OUTPUT_DIR": output,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    path = str(ROOT / "configs" / "shapes" / recipe)
    flat = [str(x) if isinstance(x, Path) else x for pair in options.items() for x in pair]
    cfg = load_config(path, flat, add_config)
    default_setup(cfg, default_argument_parser().parse_args([]))
    trainer = build_engine(cfg)
    trainer.resume_or_load(resume=False)
    metrics = trainer.train()
    lines = (output / "metrics.json").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "total_loss" in line], metrics


@pytest.fixture(scope="module")
def first_stage(shapes, tmp_path_factory):
    """Weights after a training on captions that ended early, and their score."""
    output = tmp_path_factory.mktemp("captions")
    _, metrics = train(shapes, output, "updown_features.yaml", SOLVER__MAX_ITER=120)
    return str(output / "model_final.pth"), metrics["val/CIDEr-D"]


@pytest.mark.slow
def test_rewards_of_drawn_captions_rise(shapes, first_stage, tmp_path):
    curve, _ = train(
        shapes,
        tmp_path,
        "updown_rl.yaml",
        ENGINE__NAME="RLMeanTrainer",
        MODEL__WEIGHTS=first_stage[0],
        DATALOADER__SEQ_PER_SAMPLE=5,
        DATASETS__VAL="",
        SOLVER__BASE_LR=0.0005,
        SOLVER__MAX_ITER=80,
    )
    rewards = [line["reward"] for line in curve]
    first, last = np.mean(rewards[:10]), np.mean(rewards[-10:])
    assert last > 1.2 * first > 0.5
    assert curve[-1]["unfinished"] < 0.05


@pytest.mark.slow
def test_second_stage_makes_better_captions_of_other_pictures(shapes, first_stage, tmp_path):
    """What a beam search finds is better, on pictures that were not trained on."""
    weights, before = first_stage
    curve, metrics = train(
        shapes, tmp_path, "updown_rl.yaml", MODEL__WEIGHTS=weights, SOLVER__MAX_ITER=60
    )
    rewards = [line["reward"] for line in curve]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5])
    assert metrics["val/CIDEr-D"] > before
