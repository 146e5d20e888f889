"""The released recipes read what the preprocessing tools write, below XMODALER_DATA."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xmodaler.config import kfg, load_config
from xmodaler.datasets import DATASETS_REGISTRY
from xmodaler.modeling import add_config
from xmodaler.preprocessing import caption_files, relations
from xmodaler.preprocessing.caption_sources import Captioned
from xmodaler.preprocessing.feature_sink import FeatureSink
from xmodaler.preprocessing.semantic_words import write_semantic_annotations

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["a man rides a bike", "a dog runs on the beach", "two dogs and a man"]


def items():
    splits = ("train",) * 4 + ("val",) + ("test",) * 2
    return [
        Captioned(str(k), f"{k}.jpg", split, [t.split() for t in TEXTS], list(TEXTS))
        for k, split in enumerate(splits, start=1)
    ]


def store(folder, **shapes):
    """Random features of every item in a packed file that has the folder's name."""
    rng = np.random.default_rng(0)
    sink = FeatureSink(f"{folder}.xmf", {})
    for item in items():
        arrays = {k: rng.random(shape, dtype=np.float32) for k, shape in shapes.items()}
        sink.write(item.item_id, arrays)
    sink.finish()


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    coco = root / "mscoco_dataset"
    rules = (caption_files.COCO, caption_files.MSVD, caption_files.MSRVTT)
    for rule, name in zip(rules, ("mscoco", "msvd", "msrvtt"), strict=True):
        caption_files.write_caption_files(items(), [], rule, root / f"{name}_dataset", min_count=1)
    features = coco / "features"
    store(features / "up_down", features=(12, 2048))
    store(features / "up_down_36", features=(36, 2048))
    store(features / "CLIP_RN101_49", features=(49, 2048), g_feature=(512,))
    store(features / "mil" / "resnet101_mil", features=(1000,))
    store(features / "global_feat" / "resnet101_pool5", features=(2048,))
    for name in ("msvd", "msrvtt"):
        store(root / f"{name}_dataset" / "features" / "resnet152", features=(30, 2048))
    matrices = ((i.item_id, {"features": np.ones((36, 36), np.int16)}) for i in items())
    (features / "relation").mkdir()
    relations.write_relations(matrices, features / "relation" / "relationship_coco.npz")
    add_semantic_words(coco, root)
    return root


def add_semantic_words(coco, root):
    words = ["man", "bike", "dog, dogs", "beach", *(f"class{k}" for k in range(902))]
    (root / "classes.txt").write_text("\n".join(words) + "\n")
    (root / "near.json").write_text(json.dumps({i.item_id: [[TEXTS[0], 0.4]] for i in items()}))
    np.savez(root / "scores.npz", **{i.item_id: np.linspace(1, 0, 906) for i in items()})
    for split in caption_files.SPLITS:
        references = "captions_train" if split == "train" else f"captions_{split}5k"
        write_semantic_annotations(
            coco / f"mscoco_caption_anno_{split}.json",
            coco / f"{references}.json",
            str(root / "scores.npz"),
            root / "near.json",
            root / "classes.txt",
            coco / "cosnet" / f"mscoco_caption_anno_clipfilter_fast_{split}.json",
        )


REGIONS = {kfg.ATT_FEATS: (12, 2048)}
FRAMES = {kfg.ATT_FEATS: (25, 2048)}
ALL_FRAMES = {kfg.ATT_FEATS: (30, 2048)}
GRID = {kfg.ATT_FEATS: (49, 2048), kfg.GLOBAL_FEATS: (512,), kfg.SEMANTICS_IDS: (3,)}
RECIPES = {
    "lstm-A/lstm-A": {kfg.ATTRIBUTE: (1000,), kfg.GLOBAL_FEATS: (2048,)},
    "attention/attention": REGIONS,
    "updown/updown": REGIONS,
    "gcn/gcn": {kfg.ATT_FEATS: (36, 2048), kfg.RELATION: (36, 36)},
    "transformer/transformer": REGIONS,
    "transformer/clip_transformer": GRID,
    "meshed_memory/meshed_memory": REGIONS,
    "xlan/xlan": REGIONS,
    "cosnet/cosnet": GRID,
    "msvd/mplstm/mplstm": FRAMES,
    "msvd/salstm/salstm": FRAMES,
    "msvd/transformer/transformer": ALL_FRAMES,
    "msvd/tdconved/tdconved": ALL_FRAMES,
    "msrvtt/mplstm/mplstm": FRAMES,
    "msrvtt/salstm/salstm": FRAMES,
    "msrvtt/transformer/transformer": ALL_FRAMES,
    "msrvtt/tdconved/tdconved": ALL_FRAMES,
}


def config_file(name):
    family = "video_caption" if name.startswith("ms") else "image_caption"
    return ROOT / "configs" / family / f"{name}.yaml"


@pytest.mark.parametrize("name", RECIPES)
def test_samples_of_every_recipe(name, data_root, monkeypatch):
    monkeypatch.setenv("XMODALER_DATA", str(data_root))
    cfg = load_config(str(config_file(name)), (), add_config)
    train = DATASETS_REGISTRY.get(cfg.DATASETS.TRAIN)(cfg, "train")
    records = train.load_data(cfg)
    is_video = name.startswith("ms")
    assert len(records) == (12 if is_video else 4)
    sample = train(records[0])
    length = len(sample[kfg.G_TARGET_IDS][0])
    assert len(sample[kfg.G_TARGET_IDS]) == cfg.DATALOADER.SEQ_PER_SAMPLE
    assert length == 21 >= cfg.MODEL.MAX_SEQ_LEN
    test = DATASETS_REGISTRY.get(cfg.DATASETS.TEST)(cfg, "test")
    records = test.load_data(cfg)
    assert len(records) == 2
    sample = test(records[1])
    assert sample[kfg.IDS] == "7"
    for key, shape in RECIPES[name].items():
        found = sample[key]
        assert tuple(found.shape) == shape, key


def test_without_the_data_the_message_names_the_place(tmp_path, monkeypatch):
    from xmodaler.utils.errors import UserError

    monkeypatch.setenv("XMODALER_DATA", str(tmp_path / "elsewhere"))
    cfg = load_config(str(config_file("gcn/gcn")), (), add_config)
    dataset = DATASETS_REGISTRY.get("MSCoCoDataset")(cfg, "train")
    with pytest.raises(UserError, match=r"elsewhere/mscoco_dataset/features/up_down_36' do not"):
        dataset.load_data(cfg)


@pytest.mark.slow
def test_a_recipe_trains_and_is_scored(data_root, tmp_path):
    sizes = ["MODEL.DECODER_DIM", "16", "MODEL.TOKEN_EMBED.DIM", "16"]
    sizes += ["MODEL.VISUAL_EMBED.OUT_DIM", "16", "MODEL.VOCAB_SIZE", "13"]
    metrics = ["INFERENCE.METRICS", "['BLEU', 'CIDEr']", "MODEL.DEVICE", "cpu"]
    metrics += ["DATALOADER.NUM_WORKERS", "0"]
    command = [sys.executable, "tools/train_net.py", "--config-file"]
    command += [str(config_file("msvd/mplstm/mplstm")), *sizes, *metrics]
    command += ["SOLVER.EPOCH", "1", "DATALOADER.TRAIN_BATCH_SIZE", "4"]
    command += ["OUTPUT_DIR", str(tmp_path / "out")]
    environment = {**os.environ, "XMODALER_DATA": str(data_root), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(ROOT)
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert (tmp_path / "out" / "vocabulary.txt").is_file()
    results = json.loads((tmp_path / "out" / "results" / "1.json").read_text())
    assert sorted(str(entry["image_id"]) for entry in results) == ["6", "7"]
