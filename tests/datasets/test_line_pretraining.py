"""Pre-training data in lines of JSON: index, samples, batches, what is skipped."""

import base64
import io
import json
import random
import tarfile

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
from xmodaler.datasets.pretrain import (
    ImageTextLines,
    MaskedTexts,
    ParallelTextLines,
    RegionLines,
    RegionSamples,
    TextLines,
    VideoLines,
    fit_rows,
)
from xmodaler.datasets.pretrain.video_lines import draw_clip
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


def test_lines_at_an_address():
    import fsspec

    with fsspec.open("memory://far/a.jsonl", "wb") as file:
        file.write(b'{"n": 1}\n{"n": 2}')
    records = index_lines("memory://far")
    assert [read_line(record)["n"] for record in records] == [1, 2]
    fsspec.filesystem("memory").rm("/far/a.jsonl")
    with pytest.raises(SampleError, match="cannot be read"):
        read_line(records[0])
    with pytest.raises(UserError, match="there is no file"):
        index_lines("memory://far")


def test_pairs_of_tar_shards(tmp_path, texts, lines):
    with tarfile.open(tmp_path / "a.tar", "w") as shard:
        for name, content in (
            ("1.png", base64.b64decode(encoded())),
            ("1.txt", b"a dog"),
            ("2.txt", b"a ball"),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    augment = PictureAugment(16)
    mapper = ImageTextLines(texts=texts, augment=augment, files=str(tmp_path / "a.tar"), **lines)
    good, bad = mapper.load_data(get_cfg())
    assert mapper(good)[kfg.IMAGES].shape == (3, 16, 16)
    with pytest.raises(SampleError, match="no picture"):
        mapper(bad)


def test_videos_are_frames_or_clips(tmp_path, texts, lines):
    frames = [encoded(n) for n in range(2)]
    clips = {"image": [frames, [], frames], "caption": ["a dog", "the", "[Music]"]}
    broken = {"image": [frames], "caption": ["a", "dog"]}
    whole = {"image": frames, "caption": "a red ball"}
    write(tmp_path / "d", "a.jsonl", [whole, clips, broken, {**whole, "image": []}])
    mapper = VideoLines(
        texts=texts, augment=PictureAugment(16), frames=3, files=str(tmp_path / "d"), **lines
    )
    records = mapper.load_data(get_cfg())
    batch = collate([mapper(record) for record in records[:2]])
    assert batch[kfg.IMAGES].shape == (2, 3, 3, 16, 16)  # a short video shows frames again
    words = [WORDS[index] for index in batch[kfg.U_TOKENS_IDS_WO_MASK][1]]
    assert words[:4] == ["[CLS]", "a", "dog", "[SEP]"]
    with pytest.raises(SampleError, match="1 clips with 2 captions"):
        mapper(records[2])
    with pytest.raises(SampleError, match="no list of frames"):
        mapper(records[3])


def test_neighbouring_clips_are_gathered_until_there_are_enough_frames():
    clips, captions = [[1, 2], [3], [4], [5, 6]], ["a", "b", "[Music]", "c"]
    rng = random.Random(0)
    for _ in range(20):
        frames, words = draw_clip(clips, captions, True, 4, rng)
        assert (frames, words) == ([1, 2, 3, 5, 6], "a b c") or len(frames) >= 4
        assert 4 not in frames
    assert {draw_clip(clips, captions, False, 4, rng)[1] for _ in range(30)} == {"a", "b", "c"}
    with pytest.raises(UserError, match="no clip"):
        draw_clip([[1]], ["[Music]"], True, 4, rng)


def test_texts_alone_and_in_two_languages(tmp_path, texts):
    write(tmp_path / "d", "a.jsonl", [{"text": "a dog", "en": "the ball", "xx": "a red big dog"}])
    files = str(tmp_path / "d")
    (record,) = TextLines(texts=texts, files=files).load_data(get_cfg())
    alone = TextLines(texts=texts, files=files)(record)
    assert set(alone) == {
        kfg.IDS,
        kfg.U_TOKENS_IDS,
        kfg.U_TOKENS_IDS_WO_MASK,
        kfg.U_TARGET_IDS,
    }
    mapper = ParallelTextLines(texts=texts, keys=("en", "xx"), files=files)
    random.seed(0)
    samples = [mapper(record) for _ in range(20)]
    assert {len(sample[kfg.P_TOKENS_IDS]) for sample in samples} == {4, 6}
    batch = collate(samples)
    assert batch[kfg.P_TOKENS_IDS].shape == (20, 6)
    assert sorted(set(batch[kfg.P_TOKENS_MASKS].sum(1).tolist())) == [4, 6]


def test_pictures_are_not_mirrored_where_texts_name_sides(texts):
    assert mentions_sides(["a dog", "LEFT of it"]) and not mentions_sides(["a dog"])
    rng = random.Random(0)
    views = [draw_view((4, 4, 8, 8), 40, 30, 32, rng, may_mirror=False) for _ in range(30)]
    assert not any(view.mirrored for view in views)
    assert any(draw_view((4, 4, 8, 8), 40, 30, 32, rng).mirrored for _ in range(30))
    for view in views:
        assert view.left <= 4 and view.right >= 12 and view.top <= 4 and view.bottom >= 12
    assert clip_box([-5, 2.7, 10, 100], 40, 30) == (0, 2, 5, 28)
