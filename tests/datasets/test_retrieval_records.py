"""Data of retrieval: pairs, candidates, languages, and the layouts of their files."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import JsonRetrievalDataset, SampleError, collate

WORDS = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *("a", "red", "ball", "ein", "hund")]


def encoded(value):
    file = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), value, dtype=np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    for place in ("images", "coco"):
        (tmp_path / place).mkdir()
    for value, name in ((10, "images/0.png"), (20, "images/1.png"), (30, "coco/COCO_2.png")):
        Image.fromarray(np.full((20, 20, 3), value, dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def mapped(folder, stage, content, name="r.json", **task):
    cfg = get_cfg()
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(folder / "vocab.txt")
    cfg.DATALOADER.IMAGE_FOLDER, cfg.DATALOADER.IMAGE_SIZE = str(folder / "images"), 8
    files = []
    for language, entries in content.items() if isinstance(content, dict) else [("", content)]:
        path = folder / f"{language}{name}"
        lines = name.endswith("jsonl")
        text = "\n".join(map(json.dumps, entries)) if lines else json.dumps(entries)
        path.write_text(text)
        files.append(f"{language}={path}" if language else str(path))
    cfg.DATALOADER[f"{stage.upper()}_ANNFILE"] = ",".join(files)
    for key, value in task.items():
        (cfg.DATALOADER if key == "VIDEO_FOLDER" else cfg.DATALOADER.TASK)[key] = value
    if task.get("VIDEO"):
        cfg.DATALOADER.MAX_FEAT_NUM = 3
    mapper = JsonRetrievalDataset(cfg, stage)
    return mapper, mapper.load_data(cfg)


def shade(sample):
    return sample[kfg.IMAGES].float().mean((-3, -2, -1)).round().int().tolist()


def test_training_pairs_of_all_languages_share_the_ids_of_their_pictures(folder):
    content = {
        "en": [
            {"image": "0.png", "caption": "a ball", "image_id": "x"},
            {"image": "1.png", "caption": ["a red ball", "red"], "image_id": "y"},
        ],
        "de": [{"image": "1.png", "caption": "ein hund", "image_id": "y"}],
    }
    mapper, records = mapped(folder, "train", content)
    samples = [mapper(record) for record in records]
    assert [int(sample[kfg.PAIR_IDS]) for sample in samples] == [0, 1, 1, 1]
    assert [sample[kfg.IDS] for sample in samples] == ["x", "y", "y", "y"]
    assert samples[3][kfg.U_TOKENS_IDS].tolist() == [2, 8, 9, 3]
    batch = collate(samples)
    assert batch[kfg.PAIR_IDS].tolist() == [0, 1, 1, 1] and len(batch[kfg.IMAGES]) == 4


def test_candidates_have_lists_of_captions_by_language(folder):
    entries = [{"image": "0.png", "caption": ["a ball", "red"]}, {"image": "1.png", "caption": "a"}]
    content = {"en": entries, "de": [{"image": "0.png", "caption": ["ein hund"]}]}
    mapper, records = mapped(folder, "test", content)
    batch = collate([mapper(record) for record in records])
    assert batch[kfg.IDS] == [["0.png", ["0.png"] * 2], ["1.png", ["1.png"]], ["0.png", ["0.png"]]]
    assert batch[kfg.SPLITS] == ["en", "en", "de"]
    assert len(batch[kfg.U_TOKENS_IDS]) == 4 and len(batch[kfg.IMAGES]) == 3


def test_captions_of_one_picture_on_several_lines_are_put_together(folder):
    entries = [{"image": "0.png", "caption": text, "image_id": 5} for text in ("a", "red", "ball")]
    mapper, records = mapped(folder, "val", entries, "r.jsonl")
    assert len(records) == 1
    assert mapper(records[0])[kfg.IDS] == ["5", ["5", "5", "5"]]


def test_lines_of_xflickrco_take_pictures_of_two_folders(folder):
    entries = [
        {"id": "1", "img_path": "COCO_2.png", "sentences": ["a ball"]},
        {"id": "2", "img_path": "1.png", "sentences": ["a"]},
    ]
    mapper, records = mapped(
        folder, "test", {"de": entries}, "x.jsonl", COCO_FOLDER=str(folder / "coco")
    )
    assert [record["index"] for record in records] == ["1", "2"]
    assert [shade(mapper(record)) for record in records] == [30, 20]


def test_lines_of_wit_stay_in_their_file(folder):
    entries = [
        {
            "image_url": f"http://x/{k}.png",
            "image_content": encoded(40 + k),
            "caption_reference_description": text,
        }
        for k, text in ((0, "a ball"), (1, "red"), (0, "a red ball"))
    ]
    keys = {
        "IMAGE_KEY": "image_content",
        "TEXT_KEY": "caption_reference_description",
        "INDEX_KEY": "image_url",
        "IMAGE_IN_LINE": True,
    }
    mapper, records = mapped(folder, "test", entries, "w.jsonl", **keys)
    assert all(isinstance(record["visual"]["line"], dict) for record in records)
    assert [shade(mapper(record)) for record in records] == [40, 41]
    assert mapper(records[0])[kfg.IDS][1] == ["http://x/0.png"] * 2


def test_videos_have_fields_of_their_own(folder):
    (folder / "videos").mkdir()
    (folder / "videos" / "video7.json").write_text(json.dumps([encoded(50), encoded(60)]))
    entries = [{"clip": "video7.json", "words": ["a ball"], "number": 7}]
    keys = {"IMAGE_KEY": "clip", "TEXT_KEY": "words", "INDEX_KEY": "number", "VIDEO": True}
    mapper, records = mapped(folder, "test", entries, VIDEO_FOLDER=str(folder / "videos"), **keys)
    assert shade(mapper(records[0])) == [50, 50, 60]


def test_the_layout_of_coco_is_read_too(folder):
    content = {
        "images": [{"id": 7, "file_name": "1.png"}],
        "annotations": [{"image_id": 7, "caption": "a ball"}, {"image_id": 7, "caption": "red"}],
    }
    path = folder / "coco.json"
    path.write_text(json.dumps(content))
    cfg = get_cfg()
    cfg.MODEL.PRETRAINING.MODEL_NAME = str(folder / "vocab.txt")
    cfg.DATALOADER.IMAGE_FOLDER, cfg.DATALOADER.IMAGE_SIZE = str(folder / "images"), 8
    cfg.DATALOADER.TEST_ANNFILE = cfg.DATALOADER.TRAIN_ANNFILE = f"en={path}"
    mapper = JsonRetrievalDataset(cfg, "test")
    sample = mapper(mapper.load_data(cfg)[0])
    assert sample[kfg.IDS] == ["7", ["7", "7"]] and shade(sample) == 20
    assert len(JsonRetrievalDataset(cfg, "train").load_data(cfg)) == 2


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"caption": "a"}, "no 'image'"),
        ({"image": "0.png"}, "no 'caption'"),
        ({"image": "0.png", "caption": []}, "holds no caption"),
        ({"image": "0.png", "caption": ["a", 3]}, "int stands"),
        ({"image": "0.png", "caption": "a", "image_id": [1]}, "'image_id' is a list"),
        ({"image": "9.png", "caption": "a"}, "does not exist"),
    ],
)
@pytest.mark.parametrize("stage", ["train", "test"])
def test_bad_records_are_told(folder, stage, entry, message):
    mapper, records = mapped(folder, stage, [entry])
    with pytest.raises(SampleError, match=message):
        for record in records:
            mapper(record)
