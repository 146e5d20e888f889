"""Pre-training data in lines of JSON: index, samples, batches, what is skipped."""

import base64
import io
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.config import CfgNode, get_cfg, kfg
from xmodaler.datasets import (
    SampleError,
    build_dataset_mapper,
    build_xmodaler_train_loader,
    collate,
)
from xmodaler.datasets.augmentation import PictureAugment
from xmodaler.datasets.line_shards import index_lines, read_line
from xmodaler.datasets.pretrain import ImageTextLines, MaskedTexts, RegionSamples, fit_rows
from xmodaler.datasets.pretrain.line_dataset import RegionLines
from xmodaler.functional.func_masking import WordMasking
from xmodaler.functional.func_regions import clip_box, draw_view
from xmodaler.functional.func_text import mentions_sides
from xmodaler.tokenization import BertTokenizer
from xmodaler.utils.errors import UserError

WORDS = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *("a", "red", "big", "ball", "dog", "left", "of", "the", "on", "table"),
]


def encoded(seed=0, size=(40, 30)):
    pixels = np.random.RandomState(seed).randint(0, 255, (size[1], size[0], 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS))
    return MaskedTexts(BertTokenizer(str(path)), WordMasking(WORDS, 0.5, 4), max_tokens=10)


@pytest.fixture
def lines():
    return {"image_folder": "", "image_key": "image", "in_line": True}


def write(folder, name, records):
    folder.mkdir(exist_ok=True)
    text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in records)
    (folder / name).write_text(text)


def test_every_line_of_every_file_is_indexed_and_read(tmp_path):
    write(tmp_path / "d", "b.jsonl", [{"n": 2}, "", {"n": "ü"}])
    write(tmp_path / "d", "a.jsonl", [{"n": 1}])
    write(tmp_path / "d", "_SUCCESS", [])
    records = index_lines(str(tmp_path / "d"))
    assert [record["image_id"] for record in records] == ["a.jsonl:1", "b.jsonl:1", "b.jsonl:3"]
    assert [read_line(record)["n"] for record in records] == [1, 2, "ü"]
    with pytest.raises(UserError, match="no file"):
        index_lines(str(tmp_path / "nothing*"))


def test_lines_that_break_in_mid_epoch_are_bad_samples(tmp_path):
    write(tmp_path / "d", "a.jsonl", [{"n": 1}, "[1]", '{"n":'])
    first, second, third = index_lines(str(tmp_path / "d"))
    with pytest.raises(SampleError, match=r"a\.jsonl:2: a list where an object"):
        read_line(second)
    with pytest.raises(SampleError, match="not a JSON object"):
        read_line(third)
    (tmp_path / "d" / "a.jsonl").write_text("{")
    with pytest.raises(SampleError, match="ends within"):
        read_line(first)
    (tmp_path / "d" / "a.jsonl").unlink()
    with pytest.raises(SampleError, match="cannot be read"):
        read_line(first)


def test_an_epoch_reads_every_line_once_and_counts_bad_ones(tmp_path, texts, lines):
    records = [{"image": encoded(n), "caption": ["a dog", "the ball"]} for n in range(7)]
    write(tmp_path / "d", "a.jsonl", [*records[:4], {"image": "%%", "caption": "a dog"}])
    write(tmp_path / "d", "b.jsonl", records[4:])
    mapper = ImageTextLines(
        texts=texts, augment=PictureAugment(16), files=str(tmp_path / "d"), **lines
    )
    loader = build_xmodaler_train_loader(
        mapper.load_data(get_cfg()),
        dataset_mapper=mapper,
        batch_size=2,
        num_workers=0,
        collate_fn=collate,
        seed=3,
        max_bad_fraction=0.5,
    )
    batches = list(loader)
    assert len(batches) == 4 and len(loader.bad_samples.bad_records) == 1
    seen = [name for batch in batches for name in batch[kfg.IDS]]
    assert len(set(seen)) == 7 and "a.jsonl:5" not in seen
    batch = batches[0]
    assert batch[kfg.IMAGES].shape == (2, 3, 16, 16) and batch[kfg.IMAGES].dtype == torch.uint8
    assert batch[kfg.U_TOKENS_IDS].shape == batch[kfg.TOKENS_MASKS].shape
    chosen = batch[kfg.U_TARGET_IDS] >= 0
    whole = batch[kfg.U_TOKENS_IDS_WO_MASK]
    assert torch.equal(batch[kfg.U_TARGET_IDS][chosen], whole[chosen]) and chosen.any(1).all()


@pytest.mark.parametrize("name", ["ImageTextLines", "RegionLines"])
def test_a_config_builds_them(tmp_path, texts, name):
    element = {"bb": [2, 3, 20, 10], "caption": {"en": "a ball", "xx": "a dog"}}
    record = {"binary": encoded(), "text": "a red ball", "elems": [element]}
    write(tmp_path / "d", "a.jsonl", [record])
    cfg = get_cfg()
    cfg.MODEL.VISION = CfgNode({"PATCH_SIZE": 8})
    loader = cfg.DATALOADER
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(tmp_path / "vocab.txt")
    cfg.MODEL.MAX_SEQ_LEN, loader.IMAGE_SIZE = 8, 16
    loader.TRAIN_ANNFILE = str(tmp_path / "d" / "*.jsonl")
    loader.LINES.IMAGE_IN_LINE, loader.LINES.LANGUAGE = True, "en"
    loader.LINES.IMAGE_KEY, loader.LINES.CAPTION_KEY = "binary", "text"
    loader.WORD_MASKING.MOST = 2
    mapper = build_dataset_mapper(cfg, name, "train")
    (place,) = mapper.load_data(cfg)
    batch = collate([mapper(place)])
    assert batch[kfg.IMAGES].shape == (1, 3, 16, 16)
    assert len(batch[kfg.U_TOKENS_IDS]) == (2 if name == "RegionLines" else 1)
    first = batch[kfg.U_TOKENS_IDS_WO_MASK][0].tolist()
    words = [WORDS[index] for index in first]
    assert words[:5] == ["[CLS]", "a", "red", "ball", "[SEP]"]
    assert (batch[kfg.U_TARGET_IDS] >= 0).sum(1).max() <= 2


def test_regions_become_rows_that_know_their_picture(tmp_path, texts, lines):
    regions = RegionSamples(texts, size=32, patch=8, most=3)
    elements = [
        {"bb": [2, 3, 20, 10], "caption": "a red ball", "attributes": "big"},
        {"bb": [30, 20, 30, 30], "caption": "the table"},  # reaches beyond the picture
        {"bb": [5, 5, 0, 4], "caption": "nothing"},
        {"bb": [90, 5, 9, 4], "caption": "outside"},
        {"bb": "no box", "caption": "nothing"},
    ]
    whole = {"image": encoded(), "caption": "a dog on the table", "elems": elements}
    write(tmp_path / "d", "a.jsonl", [whole, {**whole, "caption": ""}])
    mapper = RegionLines(regions=regions, files=str(tmp_path / "d"), **lines)
    random.seed(0)
    samples = [mapper(record) for record in mapper.load_data(get_cfg())]
    batch = collate(samples)
    index, is_image = batch[kfg.REGION_INDEX], batch[kfg.IS_IMAGE]
    assert index.tolist() == sorted(index.tolist()) and set(index.tolist()) == {0, 1}
    assert is_image.sum() == 1 and is_image[0] == 1
    assert batch[kfg.TARGET_BBOX][0].tolist() == [0.5, 0.5, 1, 1]
    boxes, rows = batch[kfg.TARGET_BBOX], len(index)
    assert boxes.shape == (rows, 4) and boxes.min() > 0 and boxes.max() <= 1
    assert batch[kfg.REGION_MASKS].shape == (rows, 17) and batch[kfg.REGION_MASKS][0].all()
    fitted = fit_rows(batch, 9)
    assert len(fitted[kfg.REGION_INDEX]) == len(fitted[kfg.U_TOKENS_IDS]) == 9
    assert fitted[kfg.IMAGES].shape[0] == 2


def test_a_picture_without_a_usable_region_is_a_bad_sample(tmp_path, texts, lines):
    bad = {"image": encoded(), "elems": [{"bb": [50, 0, 5, 5], "caption": "a dog"}]}
    write(tmp_path / "d", "a.jsonl", [bad, {"image": encoded()}])
    regions = RegionSamples(texts, size=32, patch=8)
    mapper = RegionLines(regions=regions, files=str(tmp_path / "d"), **lines)
    first, second = mapper.load_data(get_cfg())
    with pytest.raises(SampleError, match=r"covers nothing of a picture of 40 x 30"):
        mapper(first)
    with pytest.raises(SampleError, match="lists no elements"):
        mapper(second)


def test_pictures_are_not_mirrored_where_texts_name_sides(texts):
    assert mentions_sides(["a dog", "LEFT of it"]) and not mentions_sides(["a dog"])
    rng = random.Random(0)
    views = [draw_view((4, 4, 8, 8), 40, 30, 32, rng, may_mirror=False) for _ in range(30)]
    assert not any(view.mirrored for view in views)
    assert any(draw_view((4, 4, 8, 8), 40, 30, 32, rng).mirrored for _ in range(30))
    for view in views:
        assert view.left <= 4 and view.right >= 12 and view.top <= 4 and view.bottom >= 12
    assert clip_box([-5, 2.7, 10, 100], 40, 30) == (0, 2, 5, 28)
