"""Batches of pre-training lines are what the model of X²-VLM takes."""

import base64
import importlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.config import get_cfg
from xmodaler.datasets import build_dataset_mapper, collate
from xmodaler.modeling import add_config, build_model

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("a", "red", "big", "ball", "dog", "left", "of", "the", "on", "table"),
]


@pytest.fixture
def one_layer(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[1] / "engine"))
    return importlib.import_module("toy_x2vlm").ONE_LAYER


@pytest.fixture
def cfg(tmp_path, one_layer):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = "X2VLMPretrain"
    cfg.MODEL.ENCODER = "TextFusionEncoder"
    cfg.MODEL.VISUAL_EMBED.NAME = "VisionTowerEmbedding"
    cfg.MODEL.TOKEN_EMBED.NAME = "TokenBaseEmbedding"
    cfg.MODEL.PREDICTOR = "BertPredictionHead"
    cfg.DECODE_STRATEGY.NAME = ""
    add_config(cfg, cfg)
    settings = {
        "MODEL.DEVICE": "cpu",
        "MODEL.VOCAB_SIZE": len(WORDS),
        "MODEL.MAX_SEQ_LEN": 10,
        "MODEL.PRETRAINING.MODEL_NAME": str(tmp_path / "vocab.txt"),
        **one_layer,
        "DATALOADER.MAX_FEAT_NUM": 2,
        "DATALOADER.LINES.IMAGE_IN_LINE": True,
    }
    cfg.merge_from_list([part for pair in settings.items() for part in pair])
    return cfg


def picture():
    file = io.BytesIO()
    pixels = np.random.RandomState(0).randint(0, 255, (30, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


ELEMENTS = [
    {"bb": [2, 3, 20, 10], "caption": "a red ball"},
    {"bb": [6, 3, 20, 20], "caption": "the table"},
]
RECORDS = {
    "ImageTextLines": {"image": picture(), "caption": "a dog on the table"},
    "RegionLines": {"image": picture(), "caption": "a dog", "elems": ELEMENTS},
    "VideoLines": {"image": [picture()] * 3, "caption": ["a dog", "a red ball"]},
    "TextLines": {"text": "the dog on the table"},
    "ParallelTextLines": {"source_text": "a dog", "target_text": "the red ball"},
}


@pytest.mark.parametrize("name", list(RECORDS))
def test_every_kind_of_batch_teaches(cfg, tmp_path, name):
    from xmodaler.losses import (
        BoxRegression,
        CrossEntropy,
        ImageTextContrastive,
        ImageTextMatching,
    )

    (tmp_path / "lines.jsonl").write_text("\n".join([json.dumps(RECORDS[name])] * 3))
    cfg.DATALOADER.TRAIN_ANNFILE = str(tmp_path / "lines.jsonl")
    mapper = build_dataset_mapper(cfg, name, "train")
    batch = collate([mapper(record) for record in mapper.load_data(cfg)])
    torch.manual_seed(0)
    outputs = build_model(cfg).train()(batch)
    losses = {}
    for loss in (ImageTextContrastive(), ImageTextMatching(), CrossEntropy(), BoxRegression()):
        losses.update(loss(outputs))
    expected = {"TextLines": 1, "RegionLines": 5}.get(name, 3)
    assert len(losses) == expected, sorted(losses)
    total = sum(losses.values())
    assert math.isfinite(total.item())
    total.backward()
