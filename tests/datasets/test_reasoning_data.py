"""Statements about two pictures, and texts that follow from one: forms of files, and faults."""

import json

import numpy as np
import pytest
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import JsonEntailmentDataset, JsonReasoningDataset, SampleError, collate
from xmodaler.utils.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "two", "dogs", "left"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "images" / "8").mkdir(parents=True)
    for name, value in (("a.png", 10), ("b.png", 200), ("8/dev-850-0-img0.png", 30)):
        grey = np.full((8, 8, 3), value, dtype=np.uint8)
        Image.fromarray(grey).save(tmp_path / "images" / name)
    for name, value in (("dev-850-0-img1.png", 90), ("7.jpg", 60)):
        Image.fromarray(np.full_like(grey, value)).save(tmp_path / "images" / "8" / name)
    return tmp_path


def made(folder, content, kind=JsonReasoningDataset, stage="test", **loader):
    """The mapper of a file of lines and its records."""
    cfg = get_cfg()
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(folder / "vocab.txt")
    cfg.MODEL.MAX_SEQ_LEN = 6
    if not isinstance(content, str):
        (folder / "lines.jsonl").write_text("\n".join(map(json.dumps, content)))
        content = str(folder / "lines.jsonl")
    cfg.DATALOADER[f"{stage.upper()}_ANNFILE"] = content
    cfg.DATALOADER.IMAGE_FOLDER, cfg.DATALOADER.IMAGE_SIZE = str(folder / "images"), 16
    for key, value in loader.items():
        cfg.DATALOADER[key] = value
    mapper = kind(cfg, stage)
    return mapper, mapper.load_data(cfg)


PAIR = {"images": ["a.png", "b.png"], "sentence": "Two dogs.", "label": "True"}
NLVR2 = {"sentence": "Two dogs.", "label": "False", "identifier": "dev-850-0-1", "directory": 8}
MARVL = {"left_img": "a.png", "right_img": "b.png", "caption": "dogs", "label": True, "id": "sw-1"}


def greys(sample):
    return [sample[key].float().mean().item() for key in (kfg.IMAGES, kfg.SECOND_IMAGES)]


@pytest.mark.parametrize(
    ("record", "seen", "label", "statement", "key"),
    [
        (PAIR, [10, 200], 1, "Two dogs.", "lines.jsonl line 1"),
        (PAIR | {"label": False}, [10, 200], 0, "Two dogs.", "lines.jsonl line 1"),
        (NLVR2, [30, 90], 0, "dev-850-1", "dev-850-0-1"),
        (MARVL, [10, 200], 1, "dogs", "sw-1"),
        (
            {"image": "a.png", "sentence": "dogs", "label": "true", "identifier": "12-0"},
            [10, 10],
            1,
            "dogs",
            "12-0",
        ),
    ],
)
def test_forms_of_statements(folder, record, seen, label, statement, key):
    mapper, records = made(folder, [record])
    sample = mapper(records[0])
    assert greys(sample) == seen
    assert sample[kfg.U_TARGET_IDS] == label
    assert sample[kfg.STATEMENT_IDS] == statement and sample[kfg.IDS] == key
    batch = collate([sample, sample])
    assert batch[kfg.SECOND_IMAGES].shape == (2, 3, 16, 16)
    assert batch[kfg.U_TARGET_IDS].tolist() == [label] * 2


def test_pictures_of_identifiers_may_lie_elsewhere(folder):
    lines = [NLVR2 | {"identifier": "dev-850-1-0"}]
    mapper, records = made(folder, lines, IMAGE_NAME="elsewhere/{}.jpg")
    with pytest.raises(SampleError, match=r"elsewhere/dev-850-1-img0\.jpg' does not exist"):
        mapper(records[0])


def test_languages_are_told_apart(folder):
    files = []
    for name in ("id", "sw"):
        (folder / f"{name}.json").write_text(json.dumps([MARVL]))
        files.append(f"{name}={folder / name}.json")
    mapper, records = made(folder, ",".join(files))
    samples = [mapper(record) for record in records]
    assert [sample[kfg.SPLITS] for sample in samples] == ["id", "sw"]
    assert [sample[kfg.IDS] for sample in samples] == ["id-sw-1", "sw-sw-1"]


def test_hidden_labels_and_lacking_ones(folder):
    hidden = {key: PAIR[key] for key in ("images", "sentence")}
    mapper, records = made(folder, [hidden, hidden])
    assert kfg.U_TARGET_IDS not in mapper(records[0])
    with pytest.raises(UserError, match=r"no record of .* has a label"):
        made(folder, [hidden], stage="train")
    mapper, records = made(folder, [PAIR, hidden])
    with pytest.raises(SampleError, match="it has no label"):
        mapper(records[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": ["a.png", "gone.png"]}, "gone.png' does not exist"),
        ({"images": ["a.png"]}, "a statement has two"),
        ({"images": ["a.png", None]}, "a statement has two"),
        ({"images": "a.png"}, "a statement has two"),
        ({"label": "perhaps"}, "neither true nor false"),
        ({"sentence": "?"}, "holds no word"),
        ({"sentence": None}, "a NoneType stands where a text is due"),
    ],
)
def test_bad_statements_say_why(folder, change, message):
    mapper, records = made(folder, [PAIR, PAIR | change])
    mapper(records[0])
    with pytest.raises(SampleError, match=message):
        mapper(records[1])


@pytest.mark.parametrize("left", ["images", "sentence"])
def test_statements_without_fields(folder, left):
    record = {key: PAIR[key] for key in PAIR if key != left}
    mapper, records = made(folder, [record, PAIR])
    with pytest.raises(SampleError, match="names no pictures" if left == "images" else "sentence"):
        mapper(records[0])


def test_one_picture_of_a_pair_missing_counts_as_a_bad_record(folder):
    from xmodaler.datasets.bad_samples import take_notes
    from xmodaler.datasets.common import MapDataset

    lines = [PAIR, PAIR | {"images": ["a.png", "gone.png"]}]
    mapper, records = made(folder, lines)
    batch, notes = take_notes(collate(list(MapDataset(records, mapper, replace_bad=False))))
    assert len(notes) == 1 and "gone.png" in notes[0]
    assert len(batch[kfg.IDS]) == 1


VISUAL = {"Flikr30kID": "7", "sentence2": "Two dogs.", "gold_label": "entailment"}


def test_hypotheses_about_pictures(folder):
    folder = folder.parent / folder.name
    lines = [
        VISUAL,
        VISUAL | {"gold_label": "-"},
        VISUAL | {"gold_label": 2, "Flikr30kID": "7.jpg"},
    ]
    mapper, records = made(
        folder, lines, JsonEntailmentDataset, IMAGE_FOLDER=str(folder / "images" / "8")
    )
    samples = [mapper(record) for record in records]
    assert [int(sample[kfg.U_TARGET_IDS]) for sample in samples] == [1, 2]
    assert collate(samples)[kfg.U_TOKENS_IDS].tolist() == [[2, 5, 6, 3]] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gold_label": "maybe"}, "there are contradiction, entailment, neutral"),
        ({"Flikr30kID": ""}, "Flikr30kID"),
        ({"Flikr30kID": "8"}, r"8\.jpg' does not exist"),
        ({"sentence2": ""}, "holds no word"),
    ],
)
def test_bad_hypotheses_say_why(folder, change, message):
    images = str(folder / "images" / "8")
    mapper, records = made(
        folder, [VISUAL | change, VISUAL], JsonEntailmentDataset, IMAGE_FOLDER=images
    )
    with pytest.raises(SampleError, match=message):
        mapper(records[0])
