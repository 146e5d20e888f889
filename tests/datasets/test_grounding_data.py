"""Phrases and their boxes: released lists, REFER's files, open records, and what is wrong."""

import json
import pickle
import random

import numpy as np
import pytest
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import JsonGroundingDataset, SampleError, collate
from xmodaler.utils.errors import UserError

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "red", "square", "left", "blue"]
SIZE, BOX = (80, 40), [10, 20, 30, 10]


def refs(splits=("val", "testA")):
    return [
        {
            "ref_id": k,
            "ann_id": 100 + k,
            "image_id": 7,
            "split": split,
            "sentences": [{"raw": "Red square", "sent": "red square", "tokens": ["red", "square"]}],
        }
        for k, split in enumerate(splits)
    ]


def instances():
    return {
        "images": [{"id": 7, "file_name": "a.png", "width": 80, "height": 40}],
        "annotations": [{"id": 100 + k, "image_id": 7, "bbox": BOX} for k in range(2)],
    }


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    pixels = np.zeros((SIZE[1], SIZE[0], 3), dtype=np.uint8)
    x, y, width, height = BOX
    pixels[y : y + height, x : x + width, 0] = 255
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    (tmp_path / "refcoco+").mkdir()
    (tmp_path / "refcoco+" / "instances.json").write_text(json.dumps(instances()))
    with open(tmp_path / "refcoco+" / "refs(unc).p", "wb") as file:
        pickle.dump(refs(), file, protocol=2)
    return tmp_path


def made(folder, content, stage="test", split="", **task):
    """The mapper of a file and its records."""
    cfg = get_cfg()
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(folder / "vocab.txt")
    cfg.MODEL.MAX_SEQ_LEN = 6
    loader = cfg.DATALOADER
    if not isinstance(content, str):
        (folder / "phrases.json").write_text(json.dumps(content))
        content = str(folder / "phrases.json")
    loader[f"{stage.upper()}_ANNFILE"], loader[f"{stage.upper()}_SPLIT"] = content, split
    loader.IMAGE_FOLDER, loader.IMAGE_SIZE = str(folder / "images"), 32
    for key, value in task.items():
        loader.TASK[key] = value
    mapper = JsonGroundingDataset(cfg, stage)
    return mapper, mapper.load_data(cfg)


RELEASED = [{"image": "a.png", "text": "red square", "ref_id": k} for k in (0, 0, 1)]
OPEN = {"image": "a.png", "text": "red square", "box": BOX}


def test_released_lists_take_their_boxes_from_refer(folder):
    mapper, records = made(folder, RELEASED, REFER=str(folder / "refcoco+"))
    samples = [mapper(record) for record in records]
    batch = collate(samples)
    assert batch[kfg.IDS] == ["0", "0-1", "1"]
    assert batch[kfg.SPLITS] == ["val", "val", "testA"]
    assert batch[kfg.PICTURE_SIZES].tolist() == [[80, 40]] * 3
    assert batch[kfg.TRUE_BOXES][1].tolist() == [BOX]
    assert batch[kfg.TARGET_BBOX][0].tolist() == pytest.approx([25 / 80, 25 / 40, 30 / 80, 10 / 40])
    assert batch[kfg.U_TOKENS_IDS][0].tolist() == [2, 5, 6, 3]
    assert batch[kfg.IMAGES].shape == (3, 3, 32, 32)
    # The middle of the box is red, and nothing beside it.
    assert batch[kfg.IMAGES][0, 0, 20, 10] > 250 and batch[kfg.IMAGES][0, 0, 20, 25] < 5


@pytest.mark.parametrize("ending", ["p", "json"])
def test_refer_files_are_records_themselves(folder, ending):
    path = folder / "refcoco+" / "refs(unc).p"
    if ending == "json":
        path = folder / "refcoco+" / "refs.json"
        path.write_text(json.dumps(refs()))
    mapper, records = made(folder, str(path), split="testA")
    assert [record["record_id"] for record in records] == ["1"]
    assert mapper(records[0])[kfg.TRUE_BOXES].tolist() == [BOX]
    with pytest.raises(UserError, match="no phrase of the split testB"):
        made(folder, str(path), split="testB")


def test_pickles_run_nothing(folder):
    class Trap:
        def __reduce__(self):
            return (print, ("run",))

    with open(folder / "refcoco+" / "refs(unc).p", "wb") as file:
        pickle.dump([Trap()], file)
    with pytest.raises(UserError, match="refused"):
        made(folder, RELEASED, REFER=str(folder / "refcoco+"))


def test_phrases_may_have_several_boxes(folder):
    content = {
        "images": [{"id": 1, "file_name": "a.png", "split": "test"}, {"id": 2, "split": "train"}],
        "annotations": [
            {"id": 5, "image_id": 1, "phrase": "red", "boxes": [BOX, [0, 0, 5, 5]]},
            {"id": 6, "image_id": 2, "phrase": "red", "boxes": [BOX]},
        ],
    }
    mapper, records = made(folder, content, split="test")
    assert [record["record_id"] for record in records] == ["5"]
    assert mapper(records[0])[kfg.TRUE_BOXES].tolist() == [BOX, [0, 0, 5, 5]]


def red_box(image):
    """Where a picture (3, H, W) is red: cx, cy, w, h as shares."""
    rows, columns = np.nonzero(image[0].numpy() > 127)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    return np.array([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]) / 32


def test_training_parts_hold_the_box(folder):
    mapper, records = made(folder, [OPEN], "train")
    mapper.augment = None
    found = set()
    for seed in range(30):
        random.seed(seed)
        sample = mapper(records[0])
        target = sample[kfg.TARGET_BBOX].numpy()
        assert np.abs(red_box(sample[kfg.IMAGES]) - target).max() < 0.08
        found.add(round(float(target[0]), 2))
        assert set(sample) == {kfg.IDS, kfg.IMAGES, kfg.U_TOKENS_IDS, kfg.TARGET_BBOX}
    assert len(found) > 10


@pytest.mark.parametrize(("text", "mirrored"), [("red square", True), ("left red square", False)])
def test_sides_are_not_mirrored(folder, text, mirrored, monkeypatch):
    mapper, records = made(folder, [{**OPEN, "text": text}], "train")
    mapper.augment = None
    monkeypatch.setattr(random, "random", lambda: 0.1)
    monkeypatch.setattr(random, "randint", lambda low, high: 0 if low == 0 else high)
    centre = mapper(records[0])[kfg.TARGET_BBOX][0].item()
    assert centre == pytest.approx(1 - 25 / 80 if mirrored else 25 / 80)


def test_pictures_may_stay_whole(folder):
    mapper, records = made(folder, [OPEN], "train", AUGMENT=False)
    for seed in range(5):
        random.seed(seed)
        target = mapper(records[0])[kfg.TARGET_BBOX].tolist()
        assert target == pytest.approx([25 / 80, 25 / 40, 30 / 80, 10 / 40])


def test_boxes_follow_a_picture_that_was_shrunk(folder):
    mapper, records = made(folder, [{**OPEN, "width": 160, "height": 80, "box": [20, 40, 60, 20]}])
    assert mapper(records[0])[kfg.TRUE_BOXES].tolist() == [BOX]
    mapper, records = made(folder, [{**OPEN, "width": 40, "height": 80}])
    with pytest.raises(SampleError, match="drawn in one of 40 x 80"):
        mapper(records[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"box": [90, 10, 20, 20]}, "covers nothing of a picture of 80 x 40"),
        ({"box": [-30, 10, 20, 20]}, "covers nothing of a picture"),
        ({"box": [10, 10, 0, 20]}, "covers nothing"),
        ({"box": [10, 10, 5, -2]}, "covers nothing"),
        ({"box": [10, 10, 20]}, "is not x, y, width, height"),
        ({"box": [10, 10, 20, "wide"]}, "is not x, y, width, height"),
        ({"boxes": []}, "no box"),
        ({"text": " ?! "}, "holds no word"),
        ({"text": 7}, "a int stands where a text is due"),
        ({"image": "b.png"}, "does not exist"),
        ({"image": ""}, "its picture is unknown"),
    ],
)
@pytest.mark.parametrize("stage", ["train", "test"])
def test_bad_records_say_why(folder, change, message, stage):
    mapper, records = made(folder, [{**OPEN, **change}], stage)
    with pytest.raises(SampleError, match=message):
        mapper(records[0])


def test_records_without_fields_are_bad(folder):
    lacking = [{key: OPEN[key] for key in OPEN if key != left} for left in ("image", "text")]
    unknown = {**RELEASED[0], "ref_id": 99}
    mapper, records = made(folder, [*lacking, unknown], REFER=str(folder / "refcoco+"))
    for record, reason in zip(records, ("'image'", "'text'", "ref_id 99 is not in"), strict=True):
        with pytest.raises(SampleError, match=reason):
            mapper(record)


def test_a_box_that_juts_out_is_cut_in_training_only(folder):
    box = [60, 20, 40, 10]
    mapper, records = made(folder, [{**OPEN, "box": box}])
    assert mapper(records[0])[kfg.TRUE_BOXES].tolist() == [box]
    mapper, records = made(folder, [{**OPEN, "box": box}], "train")
    cx, _, width, _ = mapper(records[0])[kfg.TARGET_BBOX].tolist()
    assert cx + width / 2 <= 1 + 1e-6


def test_refer_must_be_given_and_be_clear(folder):
    with pytest.raises(UserError, match=r"need DATALOADER\.TASK\.REFER"):
        made(folder, RELEASED)
    (folder / "refcoco+" / "refs.json").write_text(json.dumps(refs()))
    with pytest.raises(UserError, match="name the file to use"):
        made(folder, RELEASED, REFER=str(folder / "refcoco+"))
