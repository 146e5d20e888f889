"""Features of frames: what a frame shows can be read off them, what moves only from several."""

import json

import numpy as np
import pytest

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import build_xmodaler_valtest_loader, collate
from xmodaler.datasets.synthetic import Scene
from xmodaler.datasets.synthetic.concepts import KINDS, SPLITS
from xmodaler.datasets.synthetic.motions import DIRECTIONS
from xmodaler.datasets.synthetic.plans import salient_groups
from xmodaler.datasets.synthetic.video_features import FRAME_FEATURE_DIM, PROJECTION


def lines(shapes, split):
    text = (shapes / f"video_scenes_{split}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def facts(shapes, video_id):
    features = np.load(shapes / "video_features" / f"{video_id}.npy")
    return features @ np.linalg.pinv(PROJECTION.astype(np.float32))


@pytest.mark.parametrize("split", SPLITS)
def test_every_frame_has_a_vector(shapes, split):
    videos = json.loads((shapes / f"video_captions_{split}.json").read_text())["images"]
    assert [record["image_id"] for record in lines(shapes, split)] == [v["id"] for v in videos]
    for video in videos:
        features = np.load(shapes / "video_features" / f"{video['id']}.npy")
        assert features.shape == (video["frames"], FRAME_FEATURE_DIM)
        assert features.dtype == np.float32


def test_what_moves_is_what_the_oracle_says(shapes):
    seen = set()
    for record in lines(shapes, "train"):
        scene = Scene.from_json({key: record[key] for key in ("ground", "shapes")})
        members = salient_groups(scene)[0]
        (motion,) = [m for m in record["motions"] if tuple(m["members"]) == members]
        kind, name = scene.shapes[members[0]].kind, motion["name"]
        found = facts(shapes, record["image_id"])
        assert KINDS[found[:2, :8].sum(0).argmax()] == kind
        x, y, radius = (found[:, 23:26][[0, -1]]).T
        if name in DIRECTIONS:
            way = np.array([x[1] - x[0], y[1] - y[0]]) / 2
            assert np.dot(way, DIRECTIONS[name]) > 0.1
        elif name in ("grow", "shrink"):
            assert (radius[1] > radius[0]) == (name == "grow")
        elif name == "blink":
            present = found[:, :8].max(1) > 0.5
            assert present[:2].all() and not present[2:4].any()
        assert scene.shapes[members[0]].colour in record["oracle"]
        seen.add(name)
    assert len(seen) > 2


def test_the_video_mapper_reads_them(shapes):
    cfg = get_cfg()
    cfg.DATASETS.VAL, cfg.MODEL.MAX_SEQ_LEN = "MSVDDataset", 20
    cfg.DATALOADER.ANNO_FOLDER = str(shapes)
    cfg.DATALOADER.FEATS_FOLDER = str(shapes / "video_features")
    cfg.DATALOADER.MAX_FEAT_NUM, cfg.DATALOADER.NUM_WORKERS = 6, 0
    (batch,) = build_xmodaler_valtest_loader(cfg, collate_fn=collate)
    assert batch[kfg.ATT_FEATS].shape[1:] == (6, FRAME_FEATURE_DIM)
