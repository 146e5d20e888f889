"""What comes beside the regions: kept in step with them, or refused in one sentence."""

import pickle
import re

import numpy as np
import pytest
import torch

from xmodaler.config import CfgNode, get_cfg, kfg
from xmodaler.datasets import (
    MSCoCoCOSNetDataset,
    MSCoCoDataset,
    SampleError,
    build_xmodaler_valtest_loader,
    collate,
)
from xmodaler.modeling.embedding import VisualGridEmbedding
from xmodaler.utils.errors import UserError

REGIONS, WIDTH = 4, 3


@pytest.fixture
def cfg(tmp_path):
    """Two pictures with four regions each, and the encoded captions that go with them."""
    (tmp_path / "features").mkdir()
    for image_id in ("7", "000008"):
        np.savez(tmp_path / "features" / f"{image_id}.npz", feat=np.ones((REGIONS, WIDTH)))
    with open(tmp_path / "mscoco_caption_anno_val.pkl", "wb") as file:
        pickle.dump([{"image_id": "7"}, {"image_id": "000008"}], file)
    cfg = get_cfg()
    cfg.DATASETS.VAL, cfg.DATALOADER.NUM_WORKERS = "MSCoCoDataset", 0
    cfg.DATALOADER.ANNO_FOLDER = str(tmp_path)
    cfg.DATALOADER.FEATS_FOLDER = str(tmp_path / "features")
    cfg.MODEL.GCN = CfgNode({"RELATION_NUM": 5, "IN_DIM": WIDTH})
    cfg.MODEL.LSTMA = CfgNode({"ATTRIBUTE_DIM": 6})
    cfg.MODEL.VISUAL_EMBED.NAME, cfg.MODEL.VISUAL_EMBED.IN_DIM = "VisualIdentityEmbedding", WIDTH
    return cfg


def write(cfg, key, arrays, kind):
    """A side file with one array for each of the two pictures, under ids of several styles."""
    path = f"{cfg.DATALOADER.ANNO_FOLDER}/{key}.{kind}"
    if kind == "npz":
        np.savez(path, **{"7": arrays, "8": arrays})
    else:
        with open(path, "wb") as file:
            pickle.dump({7: arrays, "000008": arrays}, file)
    cfg.DATALOADER[key] = path


def batch_of(cfg):
    (batch,) = build_xmodaler_valtest_loader(cfg, collate_fn=collate)
    return batch


def mapped(cfg):
    dataset = MSCoCoDataset(cfg, "val")
    return [dataset(record) for record in dataset.load_data(cfg)]


@pytest.mark.parametrize("kind", ["npz", "pkl"])
def test_files_of_both_kinds_reach_the_batch(cfg, kind):
    labels = np.arange(16).reshape(4, 4) % 5
    write(cfg, "RELATION_FILE", labels.astype(np.uint8), kind)
    write(cfg, "ATTRIBUTE_FILE", np.linspace(0, 1, 6), kind)
    write(cfg, "GV_FEAT_FILE", np.ones((1, WIDTH)), kind)
    batch = batch_of(cfg)
    assert batch[kfg.RELATION].dtype == torch.int64
    assert batch[kfg.RELATION].tolist() == [labels.tolist()] * 2
    assert batch[kfg.ATTRIBUTE].shape == (2, 6) and batch[kfg.ATTRIBUTE].dtype == torch.float32
    assert batch[kfg.GLOBAL_FEATS].shape == (2, WIDTH)


def test_relations_follow_the_choice_of_regions(cfg):
    labels = np.arange(16).reshape(4, 4) % 5
    write(cfg, "RELATION_FILE", labels, "npz")
    cfg.DATALOADER.MAX_FEAT_NUM = 3
    assert batch_of(cfg)[kfg.RELATION][0].tolist() == labels[:3, :3].tolist()
    for image_id in ("7", "000008"):
        np.savez(
            f"{cfg.DATALOADER.FEATS_FOLDER}/{image_id}.npz",
            features=np.ones((REGIONS, WIDTH)),
            boxes=np.ones((REGIONS, 4)),
            image_w=[9],
            image_h=[9],
        )
    batch = batch_of(cfg)
    # Two regions behind their mean, which is related to nothing.
    assert batch[kfg.ATT_FEATS].shape[1] == 3
    assert batch[kfg.RELATION][0].tolist() == np.pad(labels[:2, :2], (1, 0)).tolist()


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("RELATION_FILE", np.ones((5, 5), int), "is for 5 regions, but the features have 4"),
        ("RELATION_FILE", np.ones((4, 3), int), r"shape \(4, 3\); \(regions, regions\)"),
        ("RELATION_FILE", np.ones((4, 4)), "type float64; whole numbers"),
        ("RELATION_FILE", np.full((4, 4), 5), "label 5; it must be 0 to 4.*RELATION_NUM"),
        ("RELATION_FILE", np.full((4, 4), -1), "label -1; it must be 0 to 4"),
        ("ATTRIBUTE_FILE", np.ones(7), "width 7, but MODEL.LSTMA.ATTRIBUTE_DIM is 6"),
        ("ATTRIBUTE_FILE", np.ones((2, 6)), r"ATTRIBUTE has shape \(2, 6\)"),
        ("ATTRIBUTE_FILE", np.full(6, np.nan), "ATTRIBUTE has NaN"),
        ("ATTRIBUTE_FILE", np.array(["a"] * 6), "ATTRIBUTE is of type"),
        ("GV_FEAT_FILE", np.ones(8), "width 8, but MODEL.VISUAL_EMBED.IN_DIM is 3"),
    ],
)
def test_what_does_not_fit_is_one_sentence(cfg, key, array, message):
    write(cfg, key, array, "npz")
    with pytest.raises(SampleError, match=f"image '7': .*{message}") as error:
        mapped(cfg)
    assert "\n" not in str(error.value)


def test_a_file_of_other_pictures_stops_at_once(cfg):
    path = f"{cfg.DATALOADER.ANNO_FOLDER}/other.npz"
    np.savez(path, **{"4711": np.ones(6)})
    cfg.DATALOADER.ATTRIBUTE_FILE = path
    expected = f"'{path}' (ATTRIBUTE) has no entry for any of the 2 records"
    with pytest.raises(UserError, match=re.escape(expected)) as error:
        build_xmodaler_valtest_loader(cfg)
    assert "'7'" in str(error.value) and "'4711'" in str(error.value)


def test_one_missing_entry_is_one_bad_record(cfg):
    path = f"{cfg.DATALOADER.ANNO_FOLDER}/some.npz"
    np.savez(path, **{"7": np.ones(6)})
    cfg.DATALOADER.ATTRIBUTE_FILE, cfg.DATALOADER.MAX_BAD_FRACTION = path, 0.5
    assert batch_of(cfg)[kfg.IDS] == ["7"]
    cfg.DATALOADER.MAX_BAD_FRACTION = 0.01
    with pytest.raises(UserError, match=r"record '000008': .*some\.npz has no entry for it"):
        batch_of(cfg)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"attr_pred": [1, 9]}, "attr_pred has the label 9; it must be 0 to 8"),
        ({"attr_pred": [0.5, 1.0]}, "attr_pred holds values of type float64"),
        ({"attr_pred": []}, r"attr_pred has shape \(0,\)"),
        ({"attr_labels": [1, 10]}, "attr_labels has the label 10; it must be 0 to 9"),
        ({"attr_labels": [1]}, "1 attr_labels for 2 words"),
        ({"missing_labels": [-1]}, "missing_labels has the label -1"),
    ],
)
def test_semantic_words_that_are_no_classes(cfg, changes, message):
    cfg.MODEL.COSNET = CfgNode({"NUM_CLASSES": 9})
    record = {
        "image_id": "7",
        "attr_pred": [1, 2],
        "attr_labels": [1, 9],
        "missing_labels": [3],
        "tokens_ids": np.ones((1, 4), int),
        "target_ids": np.ones((1, 4), int),
    }
    dataset = MSCoCoCOSNetDataset(cfg, "train")
    assert dataset(record)[kfg.SEMANTICS_LABELS]
    with pytest.raises(SampleError, match=f"image '7': {message}"):
        dataset({**record, **changes})


def test_more_cells_than_the_grid_has_positions(cfg):
    cfg.DATALOADER.MAX_FEAT_NUM = 4
    cfg.MODEL.VISUAL_EMBED.NAME = "VisualGridEmbedding"
    cfg.MODEL.VISUAL_EMBED.G_IN_DIM = cfg.MODEL.VISUAL_EMBED.OUT_DIM = WIDTH
    embedding = VisualGridEmbedding(cfg)
    inputs = {kfg.ATT_FEATS: torch.ones(1, 4, WIDTH), kfg.GLOBAL_FEATS: torch.ones(1, WIDTH)}
    with pytest.raises(UserError, match=r"5 visual tokens exceed the 4 positions.*MAX_FEAT_NUM"):
        embedding(inputs)
    dataset = MSCoCoCOSNetDataset(cfg, "val")
    dataset.expect(cfg)
    with pytest.raises(SampleError, match=r"'7': 4 grid cells, .* room for 3; .*MAX_FEAT_NUM"):
        dataset.visual({"image_id": "7"})
    cfg.DATALOADER.MAX_FEAT_NUM = 5
    dataset = MSCoCoCOSNetDataset(cfg, "val")
    dataset.expect(cfg)
    assert dataset.visual({"image_id": "7"})[kfg.ATT_FEATS].shape == (4, WIDTH)
