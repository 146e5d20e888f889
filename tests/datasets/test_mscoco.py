"""The mappers over stored features: what they emit, and against the reference's numbers."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from xmodaler.config import CfgNode, get_cfg, kfg
from xmodaler.datasets import (
    MSCoCoCOSNetDataset,
    MSCoCoDataset,
    MSCoCoFeatDataset,
    MSCoCoSampleByTxtDataset,
    SampleError,
    build_dataset_mapper,
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
    collate,
)
from xmodaler.datasets.features import visual_sample
from xmodaler.utils.errors import UserError

PARITY = Path(
    os.environ.get("XMODALER_PARITY_DIR", Path(__file__).parents[2].parent / "shared" / "parity")
)
LENGTH, WIDTH = 6, 4


def annotations(captions=(3, 1, 2)):
    random = np.random.default_rng(0)
    return [
        {
            "image_id": str(100 + k),
            "tokens_ids": random.integers(0, 20, (n, LENGTH)).astype(np.uint32),
            "target_ids": random.integers(-1, 20, (n, LENGTH)).astype(np.int32),
            "attr_pred": np.array([1, 5, 7]),
            "attr_labels": np.array([1, 9, 7]),
            "missing_labels": [2],
        }
        for k, n in enumerate(captions)
    ]


@pytest.fixture
def cfg(tmp_path):
    """A data set in the layout of COCO: pickled captions and one npz per image."""
    feats, anno = tmp_path / "features", tmp_path / "anno"
    feats.mkdir()
    (anno / "cosnet").mkdir(parents=True)
    random = np.random.default_rng(1)
    for k in range(3):
        np.savez(
            feats / f"{100 + k}.npz",
            features=random.normal(size=(5 + k, WIDTH)).astype(np.float32),
            g_feature=np.ones((1, 3), np.float32),
        )
    for stage in ("train", "val", "test"):
        for name in ("mscoco_caption_anno_", "cosnet/mscoco_caption_anno_clipfilter_fast_"):
            with open(anno / f"{name}{stage}.pkl", "wb") as file:
                pickle.dump(annotations(), file)
    cfg = get_cfg()
    cfg.DATASETS.TRAIN = cfg.DATASETS.VAL = cfg.DATASETS.TEST = "MSCoCoDataset"
    loader = cfg.DATALOADER
    loader.ANNO_FOLDER, loader.FEATS_FOLDER = str(anno), str(feats)
    loader.TRAIN_BATCH_SIZE, loader.TEST_BATCH_SIZE, loader.NUM_WORKERS = 3, 2, 0
    loader.SEQ_PER_SAMPLE, cfg.MODEL.MAX_SEQ_LEN = 2, LENGTH
    cfg.MODEL.VISUAL_EMBED.NAME, cfg.MODEL.VISUAL_EMBED.IN_DIM = "VisualBaseEmbedding", WIDTH
    return cfg


def test_training_batch(cfg):
    batch = next(iter(build_xmodaler_train_loader(cfg, collate_fn=collate)))
    assert sorted(batch[kfg.IDS]) == ["100", "101", "102"]
    assert batch[kfg.ATT_FEATS].shape == (3, 7, WIDTH) and batch[kfg.SEQ_PER_SAMPLE] == 2
    assert batch[kfg.G_TOKENS_IDS].shape == (6, LENGTH) == batch[kfg.G_TARGET_IDS].shape
    assert batch[kfg.G_TOKENS_IDS].dtype == batch[kfg.G_TARGET_IDS].dtype == torch.int64


def test_evaluation_batches(cfg):
    batches = list(build_xmodaler_valtest_loader(cfg, stage="test", collate_fn=collate))
    assert [b[kfg.IDS] for b in batches] == [["100", "101"], ["102"]]
    assert set(batches[0]) == {kfg.IDS, kfg.ATT_FEATS, kfg.ATT_MASKS, kfg.G_TOKENS_TYPE}
    assert batches[0][kfg.G_TOKENS_TYPE].shape == (2, LENGTH)


def test_explicit_construction_equals_the_config(cfg):
    from_config = MSCoCoDataset(cfg, "val")
    explicit = MSCoCoDataset(**MSCoCoDataset.from_config(cfg, "val"))
    record = annotations()[0]
    for mapper in (from_config, explicit):
        assert mapper(record)[kfg.IDS] == "100"
    assert torch.equal(from_config(record)[kfg.ATT_FEATS], explicit(record)[kfg.ATT_FEATS])


def test_all_regions_when_the_limit_is_not_positive(cfg):
    record = annotations()[2]
    for limit, kept in ((-1, 7), (0, 7), (3, 3), (50, 7)):
        cfg.DATALOADER.MAX_FEAT_NUM = limit
        assert MSCoCoDataset(cfg, "val")(record)[kfg.ATT_FEATS].shape == (kept, WIDTH)


def test_no_features_give_a_placeholder(cfg):
    cfg.DATALOADER.FEATS_FOLDER = ""
    assert MSCoCoDataset(cfg, "val")(annotations()[0])[kfg.ATT_FEATS].tolist() == [[0.0]]


def test_side_files_reach_the_batch(cfg, tmp_path):
    sizes = {
        "RELATION_FILE": lambda k: (5 + k, 5 + k),
        "ATTRIBUTE_FILE": lambda k: (10,),
        "GV_FEAT_FILE": lambda k: (8,),
    }
    for name, shape in sizes.items():
        with open(tmp_path / f"{name}.pkl", "wb") as file:
            pickle.dump({100 + k: np.ones(shape(k), np.uint8) for k in range(3)}, file)
        cfg.DATALOADER[name] = str(tmp_path / f"{name}.pkl")
    batch = next(iter(build_xmodaler_train_loader(cfg, collate_fn=collate)))
    assert batch[kfg.RELATION].shape == (3, 7, 7) and batch[kfg.RELATION].dtype == torch.int64
    assert batch[kfg.ATTRIBUTE].shape == (3, 10) and batch[kfg.ATTRIBUTE].dtype == torch.float32
    assert batch[kfg.GLOBAL_FEATS].shape == (3, 8)


@pytest.mark.parametrize("kind", ["json", "npz"])
def test_captions_from_other_files(cfg, kind):
    folder = Path(cfg.DATALOADER.ANNO_FOLDER)
    records = annotations()
    (folder / "mscoco_caption_anno_train.pkl").unlink()
    if kind == "json":
        lists = [
            {k: v.tolist() if hasattr(v, "tolist") else v for k, v in record.items()}
            for record in records
        ]
        (folder / "mscoco_caption_anno_train.json").write_text(json.dumps(lists))
    else:
        np.savez(
            folder / "mscoco_caption_anno_train.npz",
            image_id=np.array([r["image_id"] for r in records]),
            captions=np.array([len(r["tokens_ids"]) for r in records]),
            tokens_ids=np.concatenate([r["tokens_ids"] for r in records]),
            target_ids=np.concatenate([r["target_ids"] for r in records]),
        )
    loaded = MSCoCoDataset(cfg, "train").load_data(cfg)
    for mine, given in zip(loaded, records, strict=True):
        assert mine["image_id"] == given["image_id"]
        assert (mine["tokens_ids"] == given["tokens_ids"]).all()
        assert (mine["target_ids"] == given["target_ids"]).all()


def test_keys_of_python_2_pickles(cfg):
    old = [{key.encode(): value for key, value in record.items()} for record in annotations()]
    for record in old:
        record[b"image_id"] = record[b"image_id"].encode()
    path = Path(cfg.DATALOADER.ANNO_FOLDER) / "mscoco_caption_anno_train.pkl"
    path.write_bytes(pickle.dumps(old, protocol=2))
    assert MSCoCoDataset(cfg, "train").load_data(cfg)[0]["image_id"] == "100"


def test_malicious_annotations_execute_nothing(cfg, tmp_path):
    path = Path(cfg.DATALOADER.ANNO_FOLDER) / "mscoco_caption_anno_train.pkl"
    path.write_bytes(b"cos\nmkdir\n(S'" + str(tmp_path / "attacked").encode() + b"'\ntR.")
    with pytest.raises(UserError, match="mkdir"):
        MSCoCoDataset(cfg, "train").load_data(cfg)
    assert not (tmp_path / "attacked").exists()


def test_one_record_per_caption(cfg):
    cfg.DATASETS.TRAIN = "MSCoCoSampleByTxtDataset"
    with pytest.raises(UserError, match="SEQ_PER_SAMPLE is 2; set it to 1"):
        build_xmodaler_train_loader(cfg)
    cfg.DATALOADER.SEQ_PER_SAMPLE = 1
    mapper = MSCoCoSampleByTxtDataset(cfg, "train")
    rows = mapper.load_data(cfg)
    assert [row["image_id"] for row in rows] == ["100"] * 3 + ["101"] + ["102"] * 2
    expected = annotations()[0]["tokens_ids"]
    for k in range(3):
        assert mapper(rows[k])[kfg.G_TOKENS_IDS][0].tolist() == expected[k].tolist()
    assert len(MSCoCoSampleByTxtDataset(cfg, "val").load_data(cfg)) == 3


def test_a_subclass_in_the_style_of_x_modaler(cfg):
    """Overrides the constructor with the documented arguments and joins data of its own."""
    from xmodaler.config import configurable
    from xmodaler.datasets.images.mscoco import MSCoCoDataset as Parent

    class Mine(Parent):
        @configurable
        def __init__(
            self,
            stage: str,
            anno_file: str,
            seq_per_img: int,
            max_feat_num: int,
            max_seq_len: int,
            feats_folder: str,
            relation_file: str,
            gv_feat_file: str,
            attribute_file: str,
        ):
            super().__init__(
                stage,
                anno_file,
                seq_per_img,
                max_feat_num,
                max_seq_len,
                feats_folder,
                relation_file,
                gv_feat_file,
                attribute_file,
            )

        def _preprocess_datalist(self, datalist):
            return [{**record, "gv_feat": np.ones(2)} for record in datalist]

    mapper = Mine(cfg, "train")
    assert mapper(mapper.load_data(cfg)[0])[kfg.GLOBAL_FEATS].tolist() == [1, 1]


# ---- bad input


def test_bad_features_are_bad_samples(cfg):
    folder = Path(cfg.DATALOADER.FEATS_FOLDER)
    mapper = MSCoCoDataset(cfg, "val")
    mapper.load_data(cfg)
    cases = {
        "NaN or infinity": np.full((2, WIDTH), np.nan, np.float32),
        "width 7, but MODEL.VISUAL_EMBED.IN_DIM is 4": np.ones((2, 7), np.float32),
        r"shape \(4,\)": np.ones(WIDTH, np.float32),
        r"shape \(0, 4\)": np.ones((0, WIDTH), np.float32),
        "of type <U1": np.full((2, WIDTH), "a"),
    }
    for words, features in cases.items():
        np.savez(folder / "100.npz", features=features)
        with pytest.raises(SampleError, match=f"image '100': .*{words}"):
            mapper(annotations()[0])
    np.savez(folder / "100.npz", a=np.ones(1), b=np.ones(1))
    with pytest.raises(SampleError, match="a, b, but none is named 'features'"):
        mapper(annotations()[0])


def test_bad_records_are_bad_samples(cfg):
    mapper = MSCoCoDataset(cfg, "train")
    mapper.load_data(cfg)
    good = annotations()[0]
    mapper.vocab_size = 20
    mapper(good)
    cases = [
        ({**good, "tokens_ids": np.zeros((0, LENGTH))}, "no caption to train on"),
        ({**good, "target_ids": good["target_ids"][:1]}, "differ"),
        ({**good, "tokens_ids": good["tokens_ids"] + 30}, "MODEL.VOCAB_SIZE 20"),
        ({"image_id": "100"}, "no caption to train on"),
        ({"tokens_ids": 1}, "has no 'image_id'"),
        ({"image_id": "file line 3", "error": "not JSON"}, "file line 3: not JSON"),
        ({**good, "image_id": "nix"}, "record 'nix': no features"),
    ]
    for record, words in cases:
        with pytest.raises(SampleError, match=words):
            mapper(record)


def test_missing_files_stop_at_once(cfg):
    for key, words in [
        ("FEATS_FOLDER", "features 'nowhere' do not exist"),
        ("ANNO_FOLDER", "annotations 'nowhere.*do not exist .*DATALOADER.ANNO_FOLDER"),
        ("RELATION_FILE", "'nowhere' does not exist"),
    ]:
        changed = cfg.clone()
        changed.DATALOADER[key] = "nowhere"
        with pytest.raises(UserError, match=words) as caught:
            build_xmodaler_train_loader(changed)
        assert not isinstance(caught.value, SampleError)


def test_malformed_encoded_records(cfg):
    path = Path(cfg.DATALOADER.ANNO_FOLDER) / "mscoco_caption_anno_train.pkl"
    good = annotations()
    path.write_bytes(
        pickle.dumps([good[0], "text", {"image_id": "7", "tokens_ids": [[1], [1, 2]]}, {"a": 1}])
    )
    mapper = MSCoCoDataset(cfg, "train")
    loaded = mapper.load_data(cfg)
    mapper(loaded[0])
    for record, words in zip(
        loaded[1:], ["is a str", "no integer table", "no 'image_id'"], strict=True
    ):
        with pytest.raises(SampleError, match=words):
            mapper(record)
    path.write_bytes(pickle.dumps({"not": "a list"}))
    with pytest.raises(UserError, match="holds a dict, not a list"):
        mapper.load_data(cfg)


# ---- the other mappers


def test_listed_feature_files(cfg):
    folder = Path(cfg.DATALOADER.FEATS_FOLDER)
    cfg.DATALOADER.SAMPLE_IDS = [1, 2]
    cfg.DATALOADER.FILE_PATHS = [str(folder / "100.npz"), str(folder / "101.npz")]
    cfg.DATASETS.TEST = "MSCoCoFeatDataset"
    batch = next(iter(build_xmodaler_valtest_loader(cfg, stage="test", collate_fn=collate)))
    assert batch[kfg.IDS] == ["1", "2"] and batch[kfg.GLOBAL_FEATS].shape == (2, 3)
    cfg.DATALOADER.SAMPLE_IDS = [1]
    with pytest.raises(UserError, match=r"SAMPLE_IDS names 1 items and DATALOADER\.FILE_PATHS 2"):
        build_xmodaler_valtest_loader(cfg, stage="test")
    mapper = MSCoCoFeatDataset(
        max_seq_len=3, max_feat_num=2, sample_ids=["a"], file_paths=["nowhere.npz"]
    )
    with pytest.raises(SampleError, match=r"image 'a': .*does not exist"):
        mapper({"image_id": "a", "path": "nowhere.npz"})


def test_semantic_words(cfg):
    cfg.MODEL.COSNET = CfgNode({"NUM_CLASSES": 9})
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = "MSCoCoCOSNetDataset"
    batch = next(iter(build_xmodaler_train_loader(cfg, collate_fn=collate)))
    assert batch[kfg.GLOBAL_FEATS].shape == (3, 3)
    assert batch[kfg.SEMANTICS_IDS].shape == (6, 3) == batch[kfg.SEMANTICS_LABELS].shape
    assert batch[kfg.SEMANTICS_MASK].dtype == torch.bool
    assert batch[kfg.SEMANTICS_MISS_LABELS].shape == (6, 10)
    test = next(iter(build_xmodaler_valtest_loader(cfg, stage="test", collate_fn=collate)))
    assert test[kfg.SEMANTICS_IDS].tolist() == [[1, 5, 7]] * 2
    cfg.DATALOADER.SAMPLE_PROB = 0.0
    batch = next(iter(build_xmodaler_train_loader(cfg, collate_fn=collate)))
    assert batch[kfg.SEMANTICS_IDS].tolist() == [[1, 5, 7]] * 6
    assert batch[kfg.SEMANTICS_LABELS].tolist() == [[1, 9, 7]] * 6
    assert batch[kfg.SEMANTICS_MISS_LABELS].nonzero()[:, 1].tolist() == [2] * 6


def test_semantic_noise_keeps_its_books(cfg):
    """One predicted word 1, true; class 2 is true but not predicted; 9 classes."""
    cfg.MODEL.COSNET = CfgNode({"NUM_CLASSES": 9})
    cfg.DATALOADER.SAMPLE_PROB = 1.0
    mapper = MSCoCoCOSNetDataset(cfg, "train")
    missing = np.eye(10, dtype=np.int64)[2]
    seen = set()
    for seed in range(50):
        np.random.seed(seed)
        ids, labels, absent = mapper.sampling(np.array([1]), np.array([1]), missing)
        new = int(ids[0])
        seen.add(new)
        assert labels[0] == (new if new in (1, 2) else 9)
        assert set(np.flatnonzero(absent)) == {1, 2} - {new}
    assert seen == set(range(9)) and missing[1] == 0


# ---- numbers of the reference


@pytest.fixture(scope="module")
def ops():
    folder = PARITY / "captioning" / "_shared"
    if not (folder / "ops.safetensors").is_file():
        pytest.skip("no reference numbers here (XMODALER_PARITY_DIR)")
    from safetensors.torch import load_file

    return load_file(folder / "ops.safetensors"), json.loads((folder / "ops.json").read_text())


@pytest.mark.parametrize("kind", ["npz_boxes", "npz_plain"])
def test_feature_files_as_in_the_reference(ops, kind):
    tensors, facts = ops
    stored = {
        name: tensors[f"npz_boxes/in/{name}"].numpy()
        for name in (("features", "boxes", "cls_prob") if kind == "npz_boxes" else ("features",))
    }
    if kind == "npz_boxes":
        stored |= {name: np.array([facts["npz"][name]]) for name in ("image_h", "image_w")}
    sample = visual_sample(stored, "x", facts["npz"]["max_feat_num"])
    expected = {k.split("/")[-1]: v for k, v in tensors.items() if k.startswith(f"{kind}/out/")}
    expected.pop(kfg.G_TOKENS_TYPE)
    assert set(sample) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(sample[name], value.numpy(), atol=1e-6)


def test_mapper_is_found_by_name(cfg):
    assert isinstance(build_dataset_mapper(cfg, "MSCoCoDataset", "val"), MSCoCoDataset)
