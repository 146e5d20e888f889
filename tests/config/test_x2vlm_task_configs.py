"""Recipes of grounding, statements and entailment: what was published, and models of their size."""

import pytest
import torch

from xmodaler.config import load_config
from xmodaler.datasets.tasks import task_files
from xmodaler.model_zoo.paths import config_root
from xmodaler.modeling import add_config, build_model

LARGE, BASE = 1024, 768
CONFIGS = {
    "grounding/refcoco_grounding_large": ("X2VLMGrounding", LARGE, "JsonGroundingDataset"),
    "grounding/refcoco_grounding_base": ("X2VLMGrounding", BASE, "JsonGroundingDataset"),
    "reasoning/nlvr2_base": ("X2VLMReasoning", BASE, "JsonReasoningDataset"),
    "reasoning/nlvr2_large": ("X2VLMReasoning", LARGE, "JsonReasoningDataset"),
    "reasoning/marvl": ("X2VLMReasoning", BASE, "JsonReasoningDataset"),
    "entailment/xvnli": ("X2VLMClassifier", BASE, "JsonEntailmentDataset"),
}


def loaded(name, *overrides):
    return load_config(f"{config_root()}/x2vlm/{name}.yaml", overrides, add_config)


@pytest.mark.parametrize("name", CONFIGS)
def test_models_are_of_their_size(name):
    cfg = loaded(name, "MODEL.DEVICE", "meta")
    architecture, width, dataset = CONFIGS[name]
    with torch.device("meta"):
        model = build_model(cfg)
    assert type(model).__name__ == architecture
    assert model.encoder.fusion_layers[0].self_attn.self.query.weight.shape == (width, width)
    assert {cfg.DATASETS[stage] for stage in ("TRAIN", "VAL", "TEST")} == {dataset}
    assert cfg.DATALOADER.IMAGE_SIZE == 384


def test_the_released_recipe_of_grounding():
    cfg = loaded("grounding/refcoco_grounding_large")
    solver, fusion = cfg.SOLVER, cfg.MODEL.FUSION
    found = (solver.NAME, solver.BASE_LR, solver.EPOCH, solver.WEIGHT_DECAY)
    assert found == ("FineTunedAdamW", 1e-5, 10, 0.01)
    assert solver.BETAS == [0.9, 0.98] and solver.GRAD_CLIP <= 0 and solver.FRESH_LR_FACTOR == 1
    assert cfg.LR_SCHEDULER.NAME == "WarmupLinearSteps" and cfg.LR_SCHEDULER.WARMUP_SHARE == 0.1
    assert (fusion.TEXT_DROP_PATH, fusion.DROP_PATH) == (0.1, 0.1)
    assert cfg.DATALOADER.TRAIN_BATCH_SIZE == 20 and cfg.MODEL.MAX_SEQ_LEN == 40
    assert cfg.DATALOADER.REGIONS.CAREFUL_MIRROR and cfg.INFERENCE.PIXEL_IOU
    assert cfg.LOSSES.NAMES == ["BoxRegression"]


@pytest.mark.parametrize(("name", "number"), [("reasoning/marvl", 5), ("entailment/xvnli", 5)])
def test_languages_have_files_of_their_own(name, number, monkeypatch):
    monkeypatch.setenv("XMODALER_DATA", "/data")
    files = task_files(loaded(name).DATALOADER.TEST_ANNFILE)
    assert len({file.name for file in files}) == number
    assert all(file.path.startswith("/data/") and " " not in file.path for file in files)


def test_drop_path_takes_the_place_of_dropout_in_layers():
    cfg = loaded(
        "grounding/refcoco_grounding_large",
        *("MODEL.DEVICE", "meta", "MODEL.BERT.HIDDEN_DROPOUT_PROB", 0.1),
    )
    with torch.device("meta"):
        encoder = build_model(cfg).encoder
    for layers in (encoder.text_layers, encoder.fusion_layers):
        rates = [layer.output.drop_path_prob for layer in layers]
        assert rates[0] == 0 and rates[-1] == 0.1 and rates == sorted(rates)
        assert all(layer.output.dropout.p == 0 for layer in layers)
    assert encoder.fusion_layers[0].self_attn.self.attention_probs_dropout_prob == 0.1
