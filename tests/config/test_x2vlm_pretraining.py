"""The released recipes of X2-VLM's pre-training, config file by config file."""

import math
from pathlib import Path

import pytest

from xmodaler.config import load_config
from xmodaler.modeling import add_config

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "x2vlm" / "pretrain"

# processes, pictures of one, regions (pictures), their weight, videos, length, lr, warm-up, steps
# fmt: off
RECIPES = {
    "x2vlm_base_4m": (8, 128, 128, 50, 1.0, 0, 40, 1e-4, 2500, 504495),
    "x2vlm_large_4m": (16, 64, 64, 25, 1.0, 0, 40, 5e-5, 2500, 504495),
    "x2vlm_base_1b": (24, 128, 64, 26, 0.5, 0, 30, 1e-4, 2500, 1292034),
    "x2vlm_large_1b": (48, 64, 32, 14, 0.5, 0, 30, 5e-5, 2500, 1292034),
    "x2vlm_base_1b_stage2": (16, 64, 64, 26, 1.0, 40, 40, 6e-5, 1000, 404595),
    "x2vlm_large_1b_stage2": (32, 32, 32, 14, 1.0, 20, 40, 3e-5, 1000, 404595),
    "cclm_x2vlm_base": (8, 60, 60, 26, 1.0, 0, 30, 4e-5, 1000, 406614),
    "cclm_x2vlm_large": (16, 30, 30, 14, 1.0, 0, 30, 3e-5, 1000, 406614),
}
# fmt: on


def recipe(name):
    return load_config(FOLDER / f"{name}.yaml", [], add_config)


def test_every_recipe_is_there():
    others = {"pretraining", "small_photos"}
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*RECIPES, *others}


@pytest.mark.parametrize("name", list(RECIPES))
def test_sizes_and_steps_are_those_of_the_release(name):
    cfg = recipe(name)
    processes, pictures, rows, records, weight, videos, length, rate, warmup, steps = RECIPES[name]
    groups = cfg.DATALOADER.GROUPS
    assert pictures == groups.IMAGES.BATCH_SIZE
    assert (rows, records) == (groups.REGIONS.ROWS, groups.REGIONS.BATCH_SIZE)
    assert (weight, 1.0) == (groups.REGIONS.WEIGHT, groups.IMAGES.WEIGHT)
    assert videos == groups.VIDEOS.BATCH_SIZE and bool(groups.VIDEOS.ANNFILE) == (videos > 0)
    assert (3 if videos else 0) == cfg.MODEL.VISION.FRAME_POSITIONS
    assert length == cfg.MODEL.MAX_SEQ_LEN
    assert (rate, warmup) == (cfg.SOLVER.BASE_LR, cfg.LR_SCHEDULER.WARMUP)
    an_epoch = math.ceil(groups.EPOCH_SIZE / (pictures * processes))
    assert an_epoch * cfg.SOLVER.EPOCH == steps
    assert (cfg.SOLVER.GRAD_CLIP, cfg.SOLVER.WEIGHT_DECAY) == (1.0, 0.01)
    assert cfg.ENGINE.NAME == "X2VLMPretrainer"
    is_large = "large" in name
    assert (24 if is_large else 12) == cfg.MODEL.VISION.LAYERS
    assert (1024 if is_large else 768) == cfg.MODEL.BERT.HIDDEN_SIZE


@pytest.mark.parametrize("name", list(RECIPES))
def test_clean_data_and_what_they_teach(name):
    cfg = recipe(name)
    pictures, videos = cfg.DATALOADER.GROUPS.IMAGES, cfg.DATALOADER.GROUPS.VIDEOS
    is_first_stage = name.endswith("_1b")
    assert (0.15 if is_first_stage else 0.0) == pictures.CLEAN_SHARE
    assert bool(pictures.CLEAN_ANNFILE) == is_first_stage
    assert (200000 if is_first_stage else -1) == cfg.ENGINE.MATCHING_STEPS
    assert (0.35 if "stage2" in name else 0.0) == videos.CLEAN_SHARE


@pytest.mark.parametrize("name", list(RECIPES))
def test_masking_precision_and_rates(name):
    cfg = recipe(name)
    masking, is_cclm = cfg.DATALOADER.WORD_MASKING, name.startswith("cclm")
    assert ((0.4, 10) if is_cclm else (0.5, 12)) == (masking.PROBABILITY, masking.MOST)
    assert is_cclm != masking.WHOLE_WORDS
    assert ("fp32" if is_cclm else "bf16") == cfg.SOLVER.PRECISION
    assert bool(cfg.DATALOADER.GROUPS.PARALLEL_TEXTS.ANNFILE) == is_cclm
    rates = dict(cfg.SOLVER.RATES)
    if not is_cclm:
        assert rates == {} and cfg.SOLVER.FRESH_LR_FACTOR == 2.0
        return
    expected = {"base": (2e-5, 8e-5, 4e-5), "large": (1e-5, 6e-5, 3e-5)}[name.split("_")[-1]]
    parts = ("visual_embed.tower.", "encoder.text_layers.", "encoder.fusion_layers.")
    assert tuple(float(rates[part]) for part in parts) == expected
    assert [
        *("MODEL.MAX_SEQ_LEN", 64),
        *("DATALOADER.WORD_MASKING.MOST", 16),
    ] == cfg.DATALOADER.GROUPS.PARALLEL_TEXTS.SETTINGS
