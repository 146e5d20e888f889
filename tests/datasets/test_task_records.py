"""What the mappers of tasks share: files, texts, pictures, videos, and what is wrong with them."""

import base64
import io
import json
import logging

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import JsonRecords, SampleError, collate
from xmodaler.datasets.tasks import TaskVisuals, read_task_file, task_files
from xmodaler.utils.errors import UserError

WORDS = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *("a", "red", "ball", "left", "of")]


def picture(value=0, size=(40, 30)):
    return Image.fromarray(np.full((size[1], size[0], 3), value, dtype=np.uint8))


def encoded(value=0):
    file = io.BytesIO()
    picture(value).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


class Captions(JsonRecords):
    def records_of(self, entry, file):
        yield {"visual": entry["image"], "texts": [entry["caption"]], "language": file.name}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    (tmp_path / "images").mkdir()
    picture(200).save(tmp_path / "images" / "0.png")
    return tmp_path


def config(folder, files, **task):
    cfg = get_cfg()
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(folder / "vocab.txt")
    cfg.MODEL.MAX_SEQ_LEN = 5
    loader = cfg.DATALOADER
    loader.TRAIN_ANNFILE = loader.TEST_ANNFILE = files
    loader.IMAGE_FOLDER, loader.IMAGE_SIZE = str(folder / "images"), 16
    for key, value in task.items():
        loader.TASK[key] = value
    return cfg


def written(folder, name, records, lines=False):
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records)
    (folder / name).write_text(text)
    return str(folder / name)


GOOD = {"image": "0.png", "caption": "A red, red ball! of a"}


@pytest.mark.parametrize("lines", [False, True])
def test_lists_and_lines_become_pixels_and_word_pieces(folder, lines):
    files = written(folder, "r.json", [GOOD, GOOD], lines)
    mapper = Captions(config(folder, files), "test")
    records = mapper.load_data(config(folder, files))
    sample = mapper(records[1])
    # [CLS] and [SEP] are within the five.
    assert sample[kfg.U_TOKENS_IDS].tolist() == [2, 5, 6, 6, 3]
    assert sample[kfg.IMAGES].shape == (3, 16, 16) and sample[kfg.IMAGES].dtype == torch.uint8
    assert sample[kfg.IMAGES].unique().tolist() == [200]
    assert sample[kfg.IDS] in ("r.json[1]", "r.json line 2")
    assert collate([sample, sample])[kfg.TOKENS_MASKS].all()


def test_several_files_have_names(folder):
    one, two = (written(folder, f"{name}.json", [GOOD]) for name in "ab")
    cfg = config(folder, f"en={one}, de={two}")
    records = Captions(cfg, "train").load_data(cfg)
    assert [record["language"] for record in records] == ["en", "de"]
    assert [file.name for file in task_files("a.json,b.json")] == ["", ""]
    with pytest.raises(UserError, match="TEST_ANNFILE"):
        task_files(" , ", "DATALOADER.TEST_ANNFILE")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image": "0.png"}, "it has no 'caption'"),
        ({"caption": "a ball"}, "it has no 'image'"),
        ({"image": "1.png", "caption": "a ball"}, "does not exist"),
        ({"image": 3, "caption": "a ball"}, "3 stands where a picture is due"),
        ({"image": "0.png", "caption": ["a"]}, "a list stands where a text is due"),
        ({"image": "0.png", "caption": "?!"}, "holds no word"),
        ("text", "a str where an object is expected"),
    ],
)
def test_bad_records_say_what_and_where(folder, entry, message):
    cfg = config(folder, written(folder, "r.json", [GOOD, entry]))
    mapper = Captions(cfg, "test")
    records = mapper.load_data(cfg)
    mapper(records[0])
    with pytest.raises(SampleError, match=message) as caught:
        mapper(records[1])
    assert "r.json[1]" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "empty"), ("[]", "an empty list"), ('{"a": 1}', "one object"), ("[1", "not valid JSON")],
)
def test_files_without_records_are_refused(folder, content, message):
    (folder / "r.json").write_text(content)
    cfg = config(folder, str(folder / "r.json"))
    with pytest.raises(UserError, match=message):
        Captions(cfg, "test").load_data(cfg)


def test_unknown_words_are_told_and_no_reason_to_stop(folder, caplog):
    files = written(folder, "r.json", [{**GOOD, "caption": "කුරුල්ලා ගසක් මත"}])
    cfg = config(folder, files)
    mapper = Captions(cfg, "test")
    with caplog.at_level(logging.WARNING):
        records = mapper.load_data(cfg)
    assert "3 of the 3 word pieces of the test texts are unknown" in caplog.text
    assert mapper(records[0])[kfg.U_TOKENS_IDS].tolist() == [2, 1, 1, 1, 3]


def test_sides_in_a_text_forbid_the_mirror(folder):
    picture_file = folder / "images" / "half.png"
    half = np.zeros((20, 20, 3), dtype=np.uint8)
    half[:, :10] = 255
    Image.fromarray(half).save(picture_file)
    entries = [{"image": "half.png", "caption": text} for text in ("left of a", "a red ball")]
    cfg = config(folder, written(folder, "r.json", entries), SMALLEST_CROP=0.99)
    mapper = Captions(cfg, "train")
    mapper.source.augment.augment = None
    sided, free = mapper.load_data(cfg)

    def mirrored(record):
        images = [mapper(record)[kfg.IMAGES].float() for _ in range(30)]
        return sum(bool(image[..., 0].mean() < image[..., -1].mean()) for image in images)

    assert mirrored(sided) == 0
    assert 0 < mirrored(free) < 30


def shades(clip):
    return clip.float().mean((1, 2, 3)).round().int().tolist()


def test_videos_are_lists_of_frames_or_files(folder):
    videos = folder / "videos"
    videos.mkdir()
    (videos / "listed.json").write_text(json.dumps([encoded(10 * k) for k in range(7)]))
    frames = [picture(10 * k) for k in range(7)]
    frames[0].save(videos / "moving.png", save_all=True, append_images=frames[1:])
    (videos / "frames").mkdir()
    for k, frame in enumerate(frames):
        frame.save(videos / "frames" / f"{k}.png")
    cfg = config(folder, "none.json", VIDEO=True)
    cfg.DATALOADER.VIDEO_FOLDER, cfg.DATALOADER.MAX_FEAT_NUM = str(videos), 3
    source = TaskVisuals.from_config(cfg, "test")
    for name in ("listed", "listed.json", "moving.png", "moving", "frames"):
        clip = source.sample({"visual": name})[kfg.IMAGES]
        assert clip.shape == (3, 3, 16, 16)
        # Segments of 3, 2 and 2 frames; the first of each.
        assert shades(clip) == [0, 30, 50], name
    for missing in ("absent", "absent.mp4"):
        with pytest.raises(SampleError, match="absent"):
            source.video(missing)


def test_a_short_video_shows_frames_again_and_an_empty_one_is_bad(folder):
    source = TaskVisuals("", 16, frames=5, in_line=True)
    assert shades(source.video([encoded(10), encoded(20)])) == [10, 10, 10, 20, 20]
    with pytest.raises(SampleError, match="no frame"):
        source.video([])
    with pytest.raises(SampleError, match="in memory"):
        source.video(["AAAA"])


def test_frames_of_a_training_video_are_changed_alike(folder):
    cfg = config(folder, "none.json", VIDEO=True, IMAGE_IN_LINE=True)
    cfg.DATALOADER.MAX_FEAT_NUM = 4
    source = TaskVisuals.from_config(cfg, "train")
    pixels = np.random.RandomState(0).randint(0, 255, (30, 40, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    same = [base64.b64encode(file.getvalue()).decode()] * 6
    clips = [source.video(same) for _ in range(3)]
    for clip in clips:
        assert all(torch.equal(frame, clip[0]) for frame in clip)
    assert not torch.equal(clips[0], clips[1]) or not torch.equal(clips[0], clips[2])


def test_the_number_of_frames_must_be_given(folder):
    with pytest.raises(UserError, match="MAX_FEAT_NUM"):
        TaskVisuals.from_config(config(folder, "none.json", VIDEO=True), "test")


def test_a_record_may_point_at_its_line(folder):
    from xmodaler.datasets.line_shards import index_lines

    path = written(folder, "w.jsonl", [{"content": encoded(50)}], lines=True)
    visual = {"line": index_lines(path)[0], "key": "content"}
    assert TaskVisuals("", 16, in_line=True).picture(visual).unique().tolist() == [50]
    with pytest.raises(SampleError, match="no 'other'"):
        TaskVisuals("", 16, in_line=True).picture({**visual, "key": "other"})


def test_one_object_on_one_line_is_no_list_of_lines(folder):
    assert read_task_file(written(folder, "o.json", {"a": {}}))[0] == {"a": {}}
    found, problems = read_task_file(written(folder, "o.jsonl", [{"a": 1}], lines=True))
    assert found == [("o.jsonl line 1", {"a": 1})] and not problems
