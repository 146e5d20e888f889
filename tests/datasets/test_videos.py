"""The mappers of clips: layout on disk, choice of frames."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import (
    MSRVTTDataset,
    MSVDDataset,
    SampleError,
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
    collate,
)

PARITY = Path(
    os.environ.get("XMODALER_PARITY_DIR", Path(__file__).parents[2].parent / "shared" / "parity")
)


@pytest.fixture(params=["msvd", "msrvtt"])
def cfg(request, tmp_path):
    tokens = np.arange(15).reshape(5, 3)
    records = [
        {"video_id": "vid1", "tokens_ids": tokens[:3], "target_ids": tokens[:3]},
        {"video_id": "vid2", "tokens_ids": tokens[3:], "target_ids": tokens[3:]},
    ]
    for stage in ("train", "val"):
        path = tmp_path / f"{request.param}_caption_anno_{stage}.pkl"
        path.write_bytes(pickle.dumps(records))
    for name, frames in (("vid1", 3), ("vid2", 9)):
        np.save(tmp_path / f"{name}.npy", np.ones((frames, 2), np.float32))
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = cfg.DATASETS.VAL = {"msvd": "MSVDDataset", "msrvtt": "MSRVTTDataset"}[
        request.param
    ]
    loader = cfg.DATALOADER
    loader.ANNO_FOLDER = loader.FEATS_FOLDER = str(tmp_path)
    loader.TRAIN_BATCH_SIZE = loader.TEST_BATCH_SIZE = 5
    loader.NUM_WORKERS, loader.SEQ_PER_SAMPLE, loader.MAX_FEAT_NUM = 0, 1, 4
    return cfg


def test_clips_and_captions(cfg):
    batch = next(iter(build_xmodaler_train_loader(cfg, collate_fn=collate)))
    assert sorted(batch[kfg.IDS]) == ["vid1"] * 3 + ["vid2"] * 2
    assert batch[kfg.ATT_FEATS].shape == (5, 4, 2) and batch[kfg.G_TOKENS_IDS].shape == (5, 3)
    (batch,) = build_xmodaler_valtest_loader(cfg, collate_fn=collate)
    assert batch[kfg.IDS] == ["vid1", "vid2"]
    assert batch[kfg.ATT_MASKS].sum(1).tolist() == [3, 4]
    os.remove(Path(cfg.DATALOADER.FEATS_FOLDER) / "vid1.npy")
    with pytest.raises(SampleError, match="'vid1': no features"):
        MSVDDataset(cfg, "val")({"video_id": "vid1"})


@pytest.mark.parametrize("name", ["msvd", "msrvtt"])
def test_frames_as_in_the_reference(name):
    path = PARITY / "captioning" / "_shared" / "ops.json"
    if not path.is_file():
        pytest.skip("no reference numbers here (XMODALER_PARITY_DIR)")
    cases = json.loads(path.read_text())["frame_indices"]
    mapper_class = {"msvd": MSVDDataset, "msrvtt": MSRVTTDataset}[name]
    compared = 0
    for case, expected in cases.items():
        if not case.startswith(name):
            continue
        most, count = (int("".join(filter(str.isdigit, part))) for part in case.split("_")[1:])
        mapper = mapper_class("val", "", 1, most, 20, "")
        assert mapper._sample_frame(np.arange(count)).tolist() == expected, case
        compared += 1
    assert compared > 5
