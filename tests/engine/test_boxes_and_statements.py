"""Boxes and statements in training: losses fall, splits are told apart, bad records are counted."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodaler.config import get_cfg
from xmodaler.engine import build_engine
from xmodaler.modeling import add_config
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "blue", "the", "square", "both"]
SIZES = {
    "MODEL.DEVICE": "cpu",
    "MODEL.VOCAB_SIZE": len(WORDS),
    "MODEL.MAX_SEQ_LEN": 8,
    "MODEL.VISION.NAME": "TimmTower",
    "MODEL.VISION.MODEL_NAME": "vit_tiny_patch16_224",
    "MODEL.VISION.ARGS": ["patch_size", 8, "embed_dim", 32, "depth", 1, "num_heads", 2],
    "MODEL.VISION.PATCH_SIZE": 8,
    "MODEL.TOKEN_EMBED.DIM": 32,
    "MODEL.TOKEN_EMBED.USE_NORM": True,
    "MODEL.BERT.HIDDEN_SIZE": 32,
    "MODEL.BERT.NUM_ATTENTION_HEADS": 2,
    "MODEL.BERT.INTERMEDIATE_SIZE": 32,
    "MODEL.BERT.NUM_HIDDEN_LAYERS": 1,
    "MODEL.BERT.INIT_STD": 0.15,
    "MODEL.BERT.HIDDEN_DROPOUT_PROB": 0.0,
    "MODEL.BERT.ATTENTION_PROBS_DROPOUT_PROB": 0.0,
    "MODEL.FUSION.LAYERS": 1,
    "MODEL.FUSION.MEMORY_WIDTH": 32,
    "DATALOADER.IMAGE_SIZE": 32,
    "DATALOADER.TRAIN_BATCH_SIZE": 8,
    "DATALOADER.TEST_BATCH_SIZE": 5,
    "DATALOADER.NUM_WORKERS": 0,
    "DATALOADER.TASK.AUGMENT": False,
    "SOLVER.NAME": "AdamW",
    "SOLVER.BASE_LR": 0.002,
    "SOLVER.GRAD_CLIP": 1.0,
    "SOLVER.EPOCH": 30,
    "SOLVER.EVAL_PERIOD": 30,
    "SOLVER.WRITE_PERIOD": 1,
    "LR_SCHEDULER.NAME": "FixLR",
    "INFERENCE.GENERATION_MODE": False,
    "INFERENCE.VOCAB": "",
    "INFERENCE.VAL_ANNFILE": "",
    "SEED": 3,
}
TASKS = {
    "X2VLMGrounding": ("JsonGroundingDataset", "BoxRegression", "GroundingEvaler"),
    "X2VLMReasoning": ("JsonReasoningDataset", "CrossEntropy", "AccuracyEvaler"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures with a red or blue square on one side, and pairs of red or blue pictures."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    phrases, statements = [], []
    for number in range(16):
        pixels = np.full((32, 64, 3), 255, dtype=np.uint8)
        channel, x = 0 if number % 2 else 2, 4 if number % 4 < 2 else 36
        pixels[4:28, x : x + 24] = 0
        pixels[4:28, x : x + 24, channel] = 255
        Image.fromarray(pixels).save(folder / f"{number}.png")
        word, split = ("red", "testA") if channel == 0 else ("blue", "testB")
        for text in (f"the {word} square", word):
            box = [x, 4, 24, 24]
            phrases.append(
                {"image": f"{number}.png", "text": text, "box": box, "split": split, "id": number}
            )
        red = np.full((32, 32, 3), (255, 0, 0) if number % 2 else (0, 0, 255), dtype=np.uint8)
        Image.fromarray(red).save(folder / f"half{number}.png")
        other = (number // 2) % 2
        statements.append(
            {
                "images": [f"half{number}.png", f"half{other}.png"],
                "sentence": "both red",
                "label": bool(number % 2 and other % 2),
                "identifier": f"dev-{number}-0-0",
            }
        )
    for name, records in (("X2VLMGrounding", phrases), ("X2VLMReasoning", statements)):
        (folder / f"{name}.json").write_text(json.dumps(records))
        bad = {**records[0], "image": "gone.png", "images": ["half0.png", "gone.png"]}
        (folder / f"{name}_bad.json").write_text(json.dumps([*records, bad]))
    return folder


def trainer_of(task, data, folder, validation="", **changes):
    cfg = get_cfg()
    dataset, loss, evaluator = TASKS[task]
    cfg.MODEL.META_ARCHITECTURE = task
    cfg.MODEL.ENCODER = "TextFusionEncoder"
    cfg.MODEL.DECODER = cfg.MODEL.PREDICTOR = cfg.DECODE_STRATEGY.NAME = ""
    cfg.MODEL.VISUAL_EMBED.NAME = "VisionTowerEmbedding"
    cfg.MODEL.TOKEN_EMBED.NAME = "TokenBaseEmbedding"
    cfg.LOSSES.NAMES = [loss]
    add_config(cfg, cfg)
    settings = {
        **SIZES,
        "MODEL.PRETRAINING.MODEL_NAME": str(data / "vocab.txt"),
        "DATASETS.TRAIN": dataset,
        "DATASETS.VAL": dataset,
        "DATASETS.TEST": "",
        "DATALOADER.TRAIN_ANNFILE": str(data / f"{task}.json"),
        "DATALOADER.VAL_ANNFILE": str(data / f"{task}{validation}.json"),
        "DATALOADER.IMAGE_FOLDER": str(data),
        "INFERENCE.NAME": evaluator,
        "INFERENCE.ID_KEY": "id",
        "INFERENCE.VALUE": "found",
        "OUTPUT_DIR": str(folder),
        **changes,
    }
    cfg.merge_from_list([part for pair in settings.items() for part in pair])
    cfg.freeze()
    seed_all_rng(cfg.SEED)
    return build_engine(cfg)


def last_metrics(folder):
    lines = (Path(folder) / "metrics.json").read_text().splitlines()
    found = {}
    for line in lines:
        found.update(json.loads(line))
    return found


def test_boxes_come_nearer_and_splits_are_told_apart(data, tmp_path):
    changes = {"SOLVER.EPOCH": 6, "SOLVER.EVAL_PERIOD": 6}
    trainer_of("X2VLMGrounding", data, tmp_path, **changes).train()
    lines = (tmp_path / "metrics.json").read_text().splitlines()
    losses = [value["total_loss"] for value in map(json.loads, lines) if "total_loss" in value]
    assert np.mean(losses[-4:]) < 0.8 * losses[0]
    found = last_metrics(tmp_path)
    mean = (found["val/accuracy_testA"] + found["val/accuracy_testB"]) / 2
    assert mean == pytest.approx(found["val/accuracy"])
    (results,) = (tmp_path / "results").glob("*.json")
    lines = json.loads(results.read_text())
    assert len(lines) == 32 and {"id", "box", "iou"} == set(lines[0])
    # Both phrases of a picture have its number; the second is told apart.
    assert {line["id"] for line in lines} >= {0, "0-1", 15, "15-1"}


@pytest.mark.slow
def test_statements_are_learned(data, tmp_path):
    trainer_of("X2VLMReasoning", data, tmp_path).train()
    found = last_metrics(tmp_path)
    assert found["val/accuracy"] >= 0.9 > found["val/majority"] + 0.1, found
    assert found["val/consistency"] == found["val/accuracy"]


@pytest.mark.parametrize("task", TASKS)
def test_bad_records_are_counted_and_too_many_end_the_run(task, data, tmp_path):
    changes = {"SOLVER.EPOCH": 1, "SOLVER.EVAL_PERIOD": 1}
    with pytest.raises(UserError, match=r"1 of the \d+ records of this epoch are bad"):
        trainer_of(task, data, tmp_path / "a", "_bad", **changes).train()
    allowed = {**changes, "DATALOADER.MAX_BAD_FRACTION": 0.1}
    trainer_of(task, data, tmp_path / "b", "_bad", **allowed).train()
    (results,) = (tmp_path / "b" / "results").glob("*.json")
    assert len(json.loads(results.read_text())) == (32 if task == "X2VLMGrounding" else 16)
