"""Videos as data: people's own clips and captions, and the named data sets from raw clips."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import (
    MSRVTTDataset,
    MSVDDataset,
    SampleError,
    VideoCaptionDataset,
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
    collate,
)
from xmodaler.datasets.checking import check_dataset
from xmodaler.datasets.videos.clips import ClipReader
from xmodaler.datasets.videos.frames import frame_locations
from xmodaler.utils.errors import MissingDependencyError, UserError
from xmodaler.utils.frame_sampling import FrameSampling

WORDS = ["a", "red", "dog", "runs"]
FRAMES = (3, 6, 9, 12)
WIDTH = 5


def write_clip(path, count):
    """Frame k is of grey level k."""
    frames = [Image.new("RGB", (20, 16), (k, k, k)) for k in range(count)]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


@pytest.fixture
def data(tmp_path):
    """Four clips of 3 to 12 frames, features of their frames, captions in both layouts."""
    (tmp_path / "videos" / "part").mkdir(parents=True)
    (tmp_path / "features").mkdir()
    names = [f"part/clip{k}.png" for k in range(len(FRAMES))]
    for name, count in zip(names, FRAMES, strict=True):
        write_clip(tmp_path / "videos" / name, count)
        features = np.arange(count, dtype=np.float32)[:, None] + np.zeros((1, WIDTH), np.float32)
        np.save(tmp_path / "features" / f"{name[5:-4]}.npy", features)
    lines = [{"video": name, "captions": ["A red dog runs.", "a dog"]} for name in names]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "captions.jsonl").write_text(text)
    coco = {
        "images": [{"id": 10 + k, "file_name": name} for k, name in enumerate(names)],
        "annotations": [{"image_id": 10 + k, "caption": "a dog"} for k in range(len(names))],
    }
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    (tmp_path / "vocabulary.txt").write_text("\n".join(WORDS) + "\n")
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = cfg.DATASETS.VAL = "VideoCaptionDataset"
    loader = cfg.DATALOADER
    loader.TRAIN_ANNFILE = loader.VAL_ANNFILE = str(tmp_path / "captions.jsonl")
    loader.VIDEO_FOLDER, loader.IMAGE_SIZE, loader.MAX_FEAT_NUM = str(tmp_path / "videos"), 8, 6
    loader.TRAIN_BATCH_SIZE, loader.TEST_BATCH_SIZE, loader.NUM_WORKERS = 4, 4, 0
    loader.SEQ_PER_SAMPLE, cfg.SEED = 2, 1
    cfg.MODEL.MAX_SEQ_LEN, cfg.MODEL.VOCAB_SIZE = 4, len(WORDS) + 1
    cfg.INFERENCE.VOCAB = str(tmp_path / "vocabulary.txt")
    return tmp_path, cfg


def on_features(folder, cfg):
    cfg.DATALOADER.VIDEO_FOLDER, cfg.DATALOADER.FEATS_FOLDER = "", str(folder / "features")
    cfg.MODEL.VISUAL_EMBED.NAME, cfg.MODEL.VISUAL_EMBED.IN_DIM = "VisualBaseEmbedding", WIDTH


def only_batch(cfg):
    (batch,) = build_xmodaler_valtest_loader(cfg, collate_fn=collate)
    return batch


def test_batches_of_clips(data):
    _, cfg = data
    batch = only_batch(cfg)
    assert batch[kfg.IDS] == ["1", "2", "3", "4"]
    assert batch[kfg.IMAGES].shape == (4, 6, 3, 8, 8) and batch[kfg.IMAGES].dtype == torch.uint8
    assert batch[kfg.ATT_MASKS].sum(1).tolist() == [3, 6, 6, 6]
    greys = batch[kfg.IMAGES][:, :, 0, 4, 4].tolist()
    assert greys[0] == [0, 1, 2, 0, 0, 0] and greys[1] == [0, 1, 2, 3, 4, 5]
    assert greys[2] == [0, 1, 3, 4, 6, 7] and greys[3] == [0, 2, 4, 6, 8, 10]
    train = next(iter(build_xmodaler_train_loader(cfg, collate_fn=collate)))
    assert train[kfg.IMAGES].shape[0] == 4 and train[kfg.G_TOKENS_IDS].shape == (8, 4)


@pytest.mark.parametrize("annotations", ["captions.jsonl", "captions.json"])
def test_batches_of_features(data, annotations):
    folder, cfg = data
    on_features(folder, cfg)
    cfg.DATALOADER.VAL_ANNFILE = str(folder / annotations)
    batch = only_batch(cfg)  # found by the names of the clips, whatever their ids are
    assert batch[kfg.ATT_FEATS].shape == (4, 6, WIDTH)
    assert batch[kfg.ATT_FEATS][2, :, 0].tolist() == [0, 1, 3, 4, 6, 7]
    assert batch[kfg.ATT_MASKS].sum(1).tolist() == [3, 6, 6, 6]
    assert kfg.ATT_FEATS_LOC not in batch
    cfg.DATALOADER.MAX_FEAT_NUM = -1
    assert only_batch(cfg)[kfg.ATT_FEATS].shape == (4, 12, WIDTH)


def test_segments_are_random_in_training_only(data):
    _, cfg = data
    cfg.DATALOADER.FRAME_SAMPLING, cfg.DATALOADER.MAX_FEAT_NUM = "segment", 3
    record = {"image_id": "4", "file_name": "part/clip3.png"}
    train, test = VideoCaptionDataset(cfg, "train"), VideoCaptionDataset(cfg, "val")
    random.seed(3)
    drawn = {tuple(train.visual(record)[kfg.IMAGES][:, 0, 4, 4].tolist()) for _ in range(12)}
    assert len(drawn) > 5
    assert all(a // 4 == 0 and b // 4 == 1 and c // 4 == 2 for a, b, c in drawn)
    assert test.visual(record)[kfg.IMAGES][:, 0, 4, 4].tolist() == [2, 6, 10]


def test_models_that_know_places_are_told_times(data):
    folder, cfg = data
    on_features(folder, cfg)
    cfg.MODEL.VISUAL_EMBED.LOCATION_SIZE = 5
    batch = only_batch(cfg)
    times = batch[kfg.ATT_FEATS_LOC]
    assert times.shape == (4, 6, 5)
    np.testing.assert_allclose(times[0, :3, 0], [0, 1 / 3, 2 / 3], rtol=1e-6)
    np.testing.assert_allclose(times[0, :3, 2], [1 / 3, 2 / 3, 1], rtol=1e-6)
    assert frame_locations(4)[3].tolist() == [0.75, 0.0, 1.0, 1.0, 0.25]


def test_crops_are_the_same_for_all_frames():
    rows = np.add.outer(np.arange(32), np.arange(32)).astype(np.uint8)
    frames = [Image.fromarray(np.stack([rows + k] * 3, axis=2)) for k in range(4)]
    torch.manual_seed(0)
    clip = ClipReader(32, FrameSampling("uniform", 4), augment=True).convert(iter(frames)).int()
    assert not torch.equal(clip[0, 0], torch.as_tensor(rows.astype(int)))  # it was cropped
    for number in (1, 2, 3):
        assert (clip[number] - clip[0] - number).abs().max() <= 1


def test_bad_clips_are_skipped_and_counted(data):
    folder, cfg = data
    (folder / "videos" / "part" / "clip1.png").write_bytes(b"")
    cfg.DATALOADER.MAX_BAD_FRACTION = 0.3
    loader = build_xmodaler_valtest_loader(cfg, collate_fn=collate)
    (batch,) = loader
    assert batch[kfg.IDS] == ["1", "3", "4"]
    (note,) = loader.bad_samples.bad_records
    assert note.startswith("captions.jsonl line 2: Video") and "clip1.png' is empty" in note
    cfg.DATALOADER.MAX_BAD_FRACTION = 0.01
    with pytest.raises(UserError, match="1 of the 4 records of this epoch are bad"):
        list(build_xmodaler_valtest_loader(cfg, collate_fn=collate))
    (report,) = [r for r in check_dataset(cfg) if r.stage == "train"]
    assert len(report.bad) == 1 and "clip1.png" in report.bad[0]


def test_a_missing_library_is_no_bad_clip(data, monkeypatch):
    _, cfg = data

    def absent(*_):
        raise MissingDependencyError("install it with `pip install xmodaler[video]`")

    monkeypatch.setattr("xmodaler.utils.videos.open_clip", absent)
    with pytest.raises(MissingDependencyError):
        only_batch(cfg)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("VIDEO_FOLDER", "", "neither videos nor features; set DATALOADER.VIDEO_FOLDER"),
        ("VIDEO_FOLDER", "/nowhere", "VIDEO_FOLDER '/nowhere' is not a folder"),
        ("FEATS_FOLDER", "features", "are both set"),
        ("MAX_FEAT_NUM", -1, "MAX_FEAT_NUM is -1; with FRAME_SAMPLING 'uniform'"),
        ("FRAME_SAMPLING", "uniformly", "did you mean 'uniform'"),
        ("TRAIN_ANNFILE", "", 'VideoCaptionDataset needs .*"video"'),
    ],
)
def test_configs_that_cannot_work(data, key, value, message):
    _, cfg = data
    cfg.DATALOADER[key] = value
    with pytest.raises(UserError, match=message):
        build_xmodaler_train_loader(cfg)


@pytest.mark.parametrize("mapper", [MSVDDataset, MSRVTTDataset])
def test_named_data_sets_from_raw_clips(data, mapper):
    folder, cfg = data
    (folder / "videos" / "frames7").mkdir()
    for k in range(3):
        Image.new("RGB", (9, 9), (k, k, k)).save(folder / "videos" / "frames7" / f"{k}.png")
    records = [{"video_id": "clip2"}, {"video_id": "frames7"}, {"video_id": 4}]
    (folder / f"{mapper.name}_caption_anno_val.json").write_text(json.dumps(records))
    write_clip(folder / "videos" / "4.gif", 2)
    cfg.DATASETS.VAL, cfg.DATALOADER.ANNO_FOLDER = mapper.__name__, str(folder)
    batch = only_batch(cfg)
    assert batch[kfg.IDS] == ["clip2", "frames7", "4"]
    assert batch[kfg.IMAGES].shape == (3, 6, 3, 8, 8)
    assert batch[kfg.ATT_MASKS].sum(1).tolist() == [6, 3, 2]
    dataset = mapper(cfg, "val")
    dataset.load_data(cfg)
    with pytest.raises(SampleError, match="video 'nix': no clip of that name is in"):
        dataset({"video_id": "nix"})


@pytest.mark.parametrize("kind", ["npy", "npz", "packed"])
def test_named_data_sets_from_features_of_every_kind(data, kind):
    folder, cfg = data
    on_features(folder, cfg)
    if kind != "npy":
        for path in list((folder / "features").iterdir()):
            np.savez(path.with_suffix(".npz"), anything=np.load(path))
            path.unlink()
    if kind == "packed":
        from xmodaler.datasets.packing import pack, records_of_folder

        pack(records_of_folder(folder / "features"), folder / "all.feats")
        cfg.DATALOADER.FEATS_FOLDER = str(folder / "all.feats")
    mapper = MSRVTTDataset(cfg, "val")
    sample = mapper({"video_id": "clip3"})
    assert sample[kfg.ATT_FEATS][:, 0].tolist() == [0, 2, 4, 6, 8, 10]
    with pytest.raises(SampleError, match="'clip9'"):
        mapper({"video_id": "clip9"})


def test_clips_that_differ_in_size_do_not_fit_together():
    samples = [
        {kfg.IDS: k, kfg.IMAGES: torch.zeros(2, 3, 8, 8 + k, dtype=torch.uint8)} for k in (0, 1)
    ]
    with pytest.raises(UserError, match="pictures of samples '0', '1' differ in size"):
        collate(samples)
