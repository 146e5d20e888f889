"""Every task of understanding and pre-training from raw pictures in place of region features."""

from pathlib import Path

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.datasets import build_dataset_mapper, build_xmodaler_train_loader, collate
from xmodaler.datasets.synthetic import make_shapes
from xmodaler.losses import build_losses
from xmodaler.modeling import add_config, build_model
from xmodaler.utils.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "shapes"
CAPTIONS = {
    "DATALOADER.TRAIN_ANNFILE": "data/shapes/captions_train.json",
    "DATALOADER.IMAGE_FOLDER": "data/shapes/images",
}
NO_REGIONS = {"MODEL.BERT.V_TARGET_SIZE": 0, "MODEL.V_PREDICTOR": ""}
TASKS = {
    "uniter_vqa": {"DATALOADER.IMAGE_NAME": "train/{}.png"},
    "tden_vqa": {"DATALOADER.IMAGE_NAME": "train/{}.png"},
    "uniter_vcr": {},
    "tden_vcr": {},
    "uniter_retrieval": CAPTIONS,
    "tden_retrieval": CAPTIONS,
    "uniter_pretrain": {
        **CAPTIONS,
        **NO_REGIONS,
        "MODEL.V_REGRESSOR": "",
        "MODEL.PRETRAIN_TASKS": ["itm", "mlm"],
        "MODEL.PRETRAIN_TASKS_MIX_RATIO": [1, 1],
    },
    "tden_pretrain": {**CAPTIONS, **NO_REGIONS},
    "tden_caption": CAPTIONS,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("pixels")
    make_shapes(str(path / "data" / "shapes"), size=24, seed=1)
    return path


def config(name):
    cfg = get_cfg()
    changes = {
        "DATALOADER.FEATS_FOLDER": "",
        "DATALOADER.IMAGE_FOLDER": "data/shapes/images",
        "DATALOADER.IMAGE_SIZE": 64,
        "DATALOADER.TRAIN_BATCH_SIZE": 4,
        "DATALOADER.NUM_WORKERS": 0,
        "MODEL.DEVICE": "cpu",
        "MODEL.VISUAL_EMBED.NAME": "TimmEmbedding",
        "MODEL.TIMM.MODEL_NAME": "resnet10t",
        **TASKS[name],
    }
    options = [part for item in changes.items() for part in item]
    file = cfg.load_from_file_tmp(str(CONFIGS / f"{name}.yaml"))
    file.MODEL.VISUAL_EMBED.NAME = "TimmEmbedding"
    add_config(cfg, file)
    cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
    cfg.merge_from_list(options)
    return cfg


@pytest.mark.parametrize("name", ["uniter_pretrain", "tden_pretrain"])
def test_regions_cannot_be_learnt_from_pictures(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    cfg = config(name)
    cfg.MODEL.BERT.V_TARGET_SIZE = 9
    if name == "uniter_pretrain":
        cfg.MODEL.PRETRAIN_TASKS = ["mlm", "mrc-kl"]
    mapper = build_dataset_mapper(cfg, cfg.DATASETS.TRAIN, "train")
    with pytest.raises(UserError, match="pictures bring no regions"):
        mapper.load_data(cfg)


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_loss_reaches_the_pixels(name, folder, monkeypatch):
    monkeypatch.chdir(folder)
    torch.manual_seed(0)
    cfg = config(name)
    stage = "train;VCR_QA-R" if name.endswith("vcr") else "train"
    mapper = build_dataset_mapper(cfg, cfg.DATASETS.TRAIN, stage)
    batch = next(iter(build_xmodaler_train_loader(cfg, mapper, collate_fn=collate)))
    assert kfg.IMAGES in batch and kfg.ATT_FEATS not in batch
    model = build_model(cfg).train()
    outputs = model(model.preprocess_batch(batch))
    losses = {key: value for loss in build_losses(cfg) for key, value in loss(outputs).items()}
    total = sum(value for key, value in losses.items() if "acc" not in key)
    assert torch.isfinite(total)
    total.backward()
    first = next(model.visual_embed.backbone.parameters())
    assert first.grad is not None and first.grad.abs().sum() > 0
