"""Captions of which words are told from left to right: files, sequences, batches, bad records."""

import json
import random

import numpy as np
import pytest
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import JsonCaptionDataset, SampleError, collate
from xmodaler.modeling import add_config

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = [*SPECIAL, "a", "picture", "of", "red", "ball", "."]
CLS, SEP, MASK = 2, 3, 4
PROMPT = [CLS, 5, 6, 7]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    for name in ("COCO_val2014_000000000017.png", "b.png"):
        Image.fromarray(np.full((30, 40, 3), 90, dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def config(folder, records, insert=True, captions=1, length=12):
    (folder / "captions.json").write_text(json.dumps(records))
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ENCODER = "X2VLMCaptioner", "TextFusionEncoder"
    cfg.MODEL.DECODER = ""
    add_config(cfg, cfg)
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(folder / "vocab.txt")
    cfg.MODEL.MAX_SEQ_LEN = length
    loader = cfg.DATALOADER
    loader.TRAIN_ANNFILE = loader.TEST_ANNFILE = str(folder / "captions.json")
    loader.IMAGE_FOLDER, loader.IMAGE_SIZE = str(folder), 16
    loader.SEQ_PER_SAMPLE, loader.WORD_MASKING.INSERT = captions, insert
    loader.WORD_MASKING.PROBABILITY, loader.WORD_MASKING.MOST = 0.6, 4
    return cfg


def samples_of(cfg, stage="train"):
    mapper = JsonCaptionDataset(cfg, stage)
    return mapper, mapper.load_data(cfg)


RECORDS = [
    {"image": "COCO_val2014_000000000017.png", "caption": "A red ball."},
    {"image": "COCO_val2014_000000000017.png", "caption": "red ball"},
    {"image": "b.png", "caption": "a ball", "image_id": "b7"},
]


def test_masks_are_inserted(folder):
    mapper, records = samples_of(config(folder, RECORDS))
    random.seed(0)
    assert len(records) == 3
    for _ in range(20):
        sample = mapper(records[0])
        assert sample[kfg.IDS] == "17" and sample[kfg.IMAGES].shape == (3, 16, 16)
        tokens, places = sample[kfg.U_TOKENS_IDS].tolist(), sample[kfg.U_POSITIONS].tolist()
        targets = sample[kfg.U_TARGET_IDS].tolist()
        # The punctuation and the prompt stay, and the prompt is never asked for.
        assert [token for token in tokens if token != MASK] == [*PROMPT, 5, 8, 9, 10, SEP]
        masks = [place for place, token in enumerate(tokens) if token == MASK]
        assert masks and min(masks) >= 4
        for place in masks:
            assert targets[place] == tokens[place + 1]
            assert places[place] == places[place + 1]
        assert [place for place, target in enumerate(targets) if target >= 0] == masks


def test_words_are_replaced(folder):
    mapper, records = samples_of(config(folder, RECORDS, insert=False))
    whole = [*PROMPT, 5, 8, 9, 10, SEP]
    random.seed(0)
    for _ in range(20):
        sample = mapper(records[0])
        tokens, targets = sample[kfg.U_TOKENS_IDS].tolist(), sample[kfg.U_TARGET_IDS].tolist()
        assert sample[kfg.U_POSITIONS].tolist() == list(range(len(whole)))
        for token, target, word in zip(tokens, targets, whole, strict=True):
            assert target == word if target >= 0 else token == word
        assert targets[:4] == [-1] * 4 and max(targets) >= 0


def test_long_captions_end_with_the_end_of_the_sentence(folder):
    record = {"image": "b.png", "caption": "red " * 30}
    mapper, records = samples_of(config(folder, [record], length=8))
    sample = mapper(records[0])
    words = [token for token in sample[kfg.U_TOKENS_IDS].tolist() if token != MASK]
    assert words == [*PROMPT, 8, 8, 8, SEP]
    assert mapper.ids_of(records[0]) == "b"


def test_several_captions_of_a_picture(folder):
    mapper, records = samples_of(config(folder, RECORDS, captions=3))
    assert [mapper.ids_of(record) for record in records] == ["17", "b7"]
    batch = collate([mapper(record) for record in records])
    assert batch[kfg.IMAGES].shape[0] == 2 and batch[kfg.SEQ_PER_SAMPLE] == 3
    tokens, shown = batch[kfg.U_TOKENS_IDS], batch[kfg.TOKENS_MASKS]
    assert len(tokens) == 6 and batch[kfg.U_POSITIONS].shape == tokens.shape
    assert not tokens[~shown].any() and (batch[kfg.U_TARGET_IDS][~shown] == -1).all()


def test_evaluation_has_every_picture_once(folder):
    mapper, records = samples_of(config(folder, RECORDS), "test")
    samples = [mapper(record) for record in records]
    assert [sample[kfg.IDS] for sample in samples] == ["17", "b7"]
    assert all(set(sample) == {kfg.IDS, kfg.IMAGES} for sample in samples)


def test_files_of_coco(folder):
    coco = {
        "images": [{"id": 5, "file_name": "b.png", "split": "train"}],
        "annotations": [{"image_id": 5, "caption": text} for text in ("A ball", "red")],
    }
    mapper, records = samples_of(config(folder, coco))
    assert [mapper(record)[kfg.IDS] for record in records] == ["5", "5"]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ({"image": "b.png"}, "no 'caption'"),
        ({"caption": "a ball"}, "no 'image'"),
        ({"image": "b.png", "caption": "  "}, "holds no word"),
        ({"image": "b.png", "caption": []}, "holds no caption"),
        ({"image": "missing.png", "caption": "a ball"}, "missing.png"),
        ({"image": "b.png", "caption": "a", "image_id": [1]}, "no number or text"),
    ],
)
def test_bad_records_say_why(folder, record, reason):
    mapper, records = samples_of(config(folder, [record, RECORDS[2]]))
    with pytest.raises(SampleError, match=reason):
        mapper(records[0])
    assert mapper(records[1])[kfg.IDS] == "b7"
