"""The files of a data set: the same bytes again, and readable by everything that reads them."""

import hashlib
import json
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import (
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
    collate,
)
from xmodaler.datasets.annotations import read_captions, read_encoded_captions
from xmodaler.datasets.synthetic import Scene, is_made_with, make_shapes
from xmodaler.datasets.synthetic.concepts import RELATIONS, SPLITS
from xmodaler.datasets.synthetic.features import ATTRIBUTES, FEATURE_DIM
from xmodaler.datasets.vocabulary import read_word_ids, tokenized_captions
from xmodaler.utils.errors import UserError

TOOL = Path(__file__).resolve().parents[3] / "tools" / "make_shapes.py"
COUNTS = {"train": 32, "val": 4, "test": 4}


def digests(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_same_arguments_give_the_same_bytes(shapes, tmp_path):
    assert make_shapes(str(tmp_path / "again"), 40, 3, videos=10) == COUNTS
    assert digests(tmp_path / "again") == digests(shapes)
    make_shapes(str(tmp_path / "other"), 40, 4, videos=10)
    other, first = digests(tmp_path / "other"), digests(shapes)
    assert set(other) == set(first) and other["captions_val.json"] != first["captions_val.json"]


def test_a_longer_set_begins_with_the_shorter(shapes, tmp_path):
    make_shapes(str(tmp_path / "short"), 20, 3)
    long = digests(shapes)
    kept = {k: v for k, v in digests(tmp_path / "short").items() if k.startswith(("im", "fe"))}
    assert len(kept) == 40 and kept.items() <= long.items()


def test_no_id_occurs_twice(shapes):
    for kind in ("captions", "instances", "video_captions"):
        files = [read(shapes / f"{kind}_{split}.json") for split in SPLITS]
        ids = Counter(record["id"] for file in files for record in file["annotations"])
        assert max(ids.values()) == 1
    names = [read(shapes / f"{k}_{s}.json") for k in ("captions", "video_captions") for s in SPLITS]
    ids = [record["id"] for file in names for record in file["images"]]
    assert len(set(ids)) == len(ids) == 50


@pytest.mark.parametrize("split", SPLITS)
def test_pictures_captions_and_scenes_belong_together(shapes, split):
    captions, problems = read_captions(shapes / f"captions_{split}.json")
    assert not problems and len(captions) == COUNTS[split]
    lines = (shapes / f"scenes_{split}.jsonl").read_text().splitlines()
    scenes = {str(record["image_id"]): record for record in map(json.loads, lines)}
    assert [image.image_id for image in captions] == list(scenes)
    for image in captions:
        assert len(image.captions) == 5
        with Image.open(shapes / "images" / image.file_name) as picture:
            assert picture.size == (64, 64) and picture.mode == "RGB"
        Scene.from_json({k: scenes[image.image_id][k] for k in ("ground", "shapes")})


@pytest.mark.parametrize("split", SPLITS)
def test_the_coco_toolkit_reads_the_files(shapes, split, capsys):
    COCO = pytest.importorskip("pycocotools.coco").COCO
    captions = COCO(str(shapes / f"captions_{split}.json"))
    assert all(len(captions.getAnnIds(imgIds=[i])) == 5 for i in captions.getImgIds())
    instances = COCO(str(shapes / f"instances_{split}.json"))
    assert instances.getImgIds() == captions.getImgIds() and len(instances.getCatIds()) == 8
    for box in instances.loadAnns(instances.getAnnIds()):
        x, y, width, height = box["bbox"]
        assert min(x, y) >= 0 and x + width <= 64 and y + height <= 64
        assert 0.2 * width * height < box["area"] <= width * height


def test_features_boxes_and_relations_agree(shapes):
    relations = np.load(shapes / "relations.npz")
    scores, means = (np.load(shapes / f"{n}.npz") for n in ("attributes", "global_features"))
    assert (shapes / "relations.txt").read_text().split() == list(RELATIONS)
    assert (shapes / "attributes.txt").read_text().split() == list(ATTRIBUTES)
    files = sorted((shapes / "features").iterdir())
    assert [path.stem for path in files] == sorted(relations.files) and len(files) == 40
    for path in files:
        arrays, labels = np.load(path), relations[path.stem]
        regions = len(labels)
        assert arrays["features"].shape == (regions, FEATURE_DIM)
        assert arrays["boxes"][-1].tolist() == [0, 0, 64, 64]
        np.testing.assert_allclose(arrays["cls_prob"].sum(1), 1, rtol=1e-5)
        np.testing.assert_allclose(means[path.stem], arrays["features"].mean(0), rtol=1e-5)
        assert scores[path.stem].shape == (len(ATTRIBUTES),)
        for one, other in np.ndindex(regions - 1, regions - 1):
            check_relation(RELATIONS[labels[one, other]], arrays["boxes"][[one, other]])


def check_relation(name, boxes):
    """A relation between two shapes is seen in their boxes too."""
    (left, top), (other_left, other_top) = boxes[:, :2]
    (right, bottom), (other_right, other_bottom) = boxes[:, 2:]
    x, y = (boxes[1] - boxes[0]).reshape(2, 2).mean(0)
    if name == "inside":
        assert other_left < left and other_top < top
        assert right < other_right and bottom < other_bottom
    seen = {"left_of": x, "right_of": -x, "above": y, "below": -y}
    assert seen.get(name.removeprefix("near_"), 1) > 0


def test_boxes_hold_the_shapes(shapes):
    """Where a box is, the picture differs from its ground."""
    for image in read(shapes / "instances_train.json")["images"]:
        picture = np.asarray(Image.open(shapes / "images" / image["file_name"]), dtype=float)
        boxes = np.load(shapes / "features" / f"{image['id']}.npz")["boxes"][:-1]
        outside = np.ones((64, 64), dtype=bool)
        for x1, y1, x2, y2 in boxes:
            outside[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1] = False
        # Grounds have little colour, shapes have much of it.
        saturation = picture.max(2) - picture.min(2)
        assert saturation[outside].mean() < 70
        for x1, y1, x2, y2 in boxes:
            assert saturation[int(y1) : int(y2) + 1, int(x1) : int(x2) + 1].max() > 70


def test_the_vocabulary_has_every_word_and_is_always_the_same(shapes, tmp_path):
    words = read_word_ids(shapes / "vocabulary.txt")
    paths = [shapes / f"{kind}_{s}.json" for kind in ("captions", "video_captions") for s in SPLITS]
    said = {w for _, many in tokenized_captions(paths) for sentence in many for w in sentence}
    assert said < set(words)
    make_shapes(str(tmp_path / "still"), 10, 4)
    assert read_word_ids(tmp_path / "still" / "vocabulary.txt") == words
    assert not (tmp_path / "still" / "msvd_caption_anno_train.json").exists()


@pytest.mark.parametrize("name", ["mscoco", "msvd"])
def test_encoded_captions_decode_to_the_captions(shapes, name):
    words = ["", *read_word_ids(shapes / "vocabulary.txt")]
    source = {"mscoco": "captions", "msvd": "video_captions"}[name]
    said = dict(tokenized_captions([shapes / f"{source}_train.json"]))
    records = read_encoded_captions(shapes / f"{name}_caption_anno_train.json")
    assert [record["image_id"] for record in records] == list(said)
    for record in records:
        decoded = [[words[i] for i in row if i] for row in record["tokens_ids"]]
        assert decoded == said[record["image_id"]]


def config(shapes, dataset):
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = cfg.DATASETS.VAL = dataset
    loader = cfg.DATALOADER
    loader.ANNO_FOLDER, loader.FEATS_FOLDER = str(shapes), str(shapes / "features")
    loader.RELATION_FILE = str(shapes / "relations.npz")
    loader.ATTRIBUTE_FILE = str(shapes / "attributes.npz")
    loader.GV_FEAT_FILE = str(shapes / "global_features.npz")
    loader.TRAIN_ANNFILE = str(shapes / "captions_train.json")
    loader.VAL_ANNFILE = str(shapes / "captions_val.json")
    loader.IMAGE_FOLDER, loader.IMAGE_SIZE = str(shapes / "images"), 64
    loader.TRAIN_BATCH_SIZE, loader.TEST_BATCH_SIZE, loader.NUM_WORKERS = 8, 4, 0
    loader.SEQ_PER_SAMPLE, loader.MAX_BAD_FRACTION, cfg.MODEL.MAX_SEQ_LEN = 5, 0.0, 20
    cfg.MODEL.VOCAB_SIZE = len(read_word_ids(shapes / "vocabulary.txt")) + 1
    cfg.INFERENCE.VOCAB = str(shapes / "vocabulary.txt")
    return cfg


@pytest.mark.parametrize("dataset", ["CaptionDataset", "MSCoCoDataset"])
def test_mappers_read_the_files(shapes, dataset):
    cfg = config(shapes, dataset)
    batches = list(build_xmodaler_train_loader(cfg, collate_fn=collate))
    assert sum(len(batch[kfg.IDS]) for batch in batches) == 32
    for batch in batches:
        assert batch[kfg.ATT_FEATS].shape[2] == FEATURE_DIM
        assert batch[kfg.G_TOKENS_IDS].shape == (40, 20)
        assert batch[kfg.ATTRIBUTE].shape == (8, len(ATTRIBUTES))
        assert batch[kfg.GLOBAL_FEATS].shape == (8, FEATURE_DIM)
        assert batch[kfg.RELATION].ndim == 3
        if dataset == "CaptionDataset":
            assert batch[kfg.IMAGES].shape == (8, 3, 64, 64)
    (batch,) = build_xmodaler_valtest_loader(cfg, collate_fn=collate)
    assert batch[kfg.IDS] == [str(2_000_000 + k) for k in range(4)]


def test_the_video_mapper_reads_the_captions(shapes):
    cfg = config(shapes, "MSVDDataset")
    cfg.DATALOADER.FEATS_FOLDER, cfg.DATALOADER.SEQ_PER_SAMPLE = "", 1
    batches = list(build_xmodaler_train_loader(cfg, collate_fn=collate))
    assert {i for batch in batches for i in batch[kfg.IDS]} == {
        str(1_500_000 + k) for k in range(8)
    }


def test_the_tool_makes_a_set(tmp_path, capsys):
    main = runpy.run_path(str(TOOL))["main"]
    out = tmp_path / "set"
    assert main(["--out", str(out), "--size", "10", "--seed", "5", "--image-size", "80"]) == 0
    assert capsys.readouterr().out == f"{out}: 8 train, 1 val, 1 test\n"
    assert is_made_with(str(out), size=10, seed=5, image_size=80, videos=0)
    assert not is_made_with(str(out), size=11)
    with pytest.raises(UserError, match="size is 9; it must be 10 to 500000"):
        main(["--out", str(out), "--size", "9"])
