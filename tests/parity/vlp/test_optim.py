"""Learning rates, optimizer steps and weight decay of the released recipes."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from xmodaler.config import get_cfg
from xmodaler.lr_scheduler import build_lr_scheduler
from xmodaler.optim import build_optimizer, clip_gradients

BATCHES_PER_EPOCH = 10

NO_CLIP, FAST = ("norm", -1.0), [0.9, 0.98]
STAIRS = {"NAME": "WarmupMultiStepLR"}
# Epochs, optimizer, betas, learning rate, weight decay, clipping, schedule.
RECIPES = {
    "tden-pretrain": (
        10, "AdamW", None, 1e-4, 0.01, NO_CLIP, {"NAME": "WarmupLinear", "WARMUP": 1, "MIN_LR": 0.0}
    ),
    "tden-caption": (
        10, "Adam", None, 3e-5, 0.0, ("value", 0.1), {"NAME": "WarmupLinear", "WARMUP": 2}
    ),
    "tden-caption-rl": (
        50, "Adam", None, 5e-6, 0.0, ("value", 0.1),
        {"NAME": "StepLR", "STEP_SIZE": 18, "GAMMA": 0.8}
    ),
    "tden-vqa": (
        20, "Adam", FAST, 5e-5, 0.0, NO_CLIP,
        {**STAIRS, "STEPS": (10, 12), "GAMMA": 0.2, "WARMUP": 4}
    ),
    "tden-vcr": (
        20, "BertAdam", None, 2e-5, 0.01, NO_CLIP, {**STAIRS, "STEPS": (4, 8), "WARMUP": 1}
    ),
    "tden-retrieval": (
        100, "Adam", None, 2e-5, 0.0, ("norm", 2.0), {**STAIRS, "STEPS": (30, 60), "WARMUP": 10}
    ),
    "uniter-pretrain": (
        30, "AdamW", None, 5e-5, 0.01, ("norm", 5.0),
        {"NAME": "WarmupLinear", "WARMUP": 3, "MIN_LR": 0.0}
    ),
    "uniter-vqa": (
        20, "Adam", FAST, 5e-5, 0.0, ("norm", 2.0),
        {**STAIRS, "STEPS": (10, 12), "GAMMA": 0.2, "WARMUP": 4}
    ),
    "uniter-vcr": (
        20, "BertAdam", None, 2e-5, 0.01, NO_CLIP, {**STAIRS, "STEPS": (4, 8), "WARMUP": 2}
    ),
    "uniter-retrieval": (
        20, "Adam", None, 2e-5, 0.0, ("norm", 2.0), {**STAIRS, "STEPS": (7, 15), "WARMUP": 2}
    ),
    "uniter-retrieval-hard": (
        20, "Adam", None, 2e-5, 0.0, ("norm", 2.0), {**STAIRS, "STEPS": (7, 15), "WARMUP": 2}
    ),
}  # fmt: skip


def recipe(name, overrides=()):
    """The default config with the training settings of a recipe."""
    epochs, optimizer, betas, rate, decay, (clip_type, clip), schedule = RECIPES[name]
    cfg = get_cfg()
    cfg.SOLVER.EPOCH, cfg.SOLVER.NAME, cfg.SOLVER.BASE_LR = epochs, optimizer, rate
    cfg.SOLVER.BETAS = betas or [0.9, 0.999]
    cfg.SOLVER.WEIGHT_DECAY = decay
    cfg.SOLVER.GRAD_CLIP_TYPE, cfg.SOLVER.GRAD_CLIP = clip_type, clip
    for key, value in schedule.items():
        cfg.LR_SCHEDULER[key] = value
    cfg.merge_from_list(list(overrides))
    return cfg


class Pair(nn.Module):
    """A linear layer and a normalisation, which have different weight decay."""

    def __init__(self):
        super().__init__()
        self.a = nn.Linear(5, 3)
        self.n = nn.LayerNorm(3)


@pytest.mark.parametrize("name", RECIPES)
def test_learning_rates(vlp_shared, name):
    expected = load_file(str(vlp_shared / "optim" / "expected.safetensors"))[f"lr/{name}"]
    cfg = recipe(name)
    optimizer = build_optimizer(cfg, Pair())
    scheduler = build_lr_scheduler(cfg, optimizer, BATCHES_PER_EPOCH)
    rates = []
    for _ in expected:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    found = torch.tensor(rates, dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-15)


def cases(vlp_shared):
    return json.loads((vlp_shared / "optim" / "meta.json").read_text())["cases"]


@pytest.mark.parametrize(
    "case",
    [
        "bertadam_vcr",
        "adamw_tden_pretrain",
        "adamw_uniter_pretrain_clipnorm",
        "adam_tden_caption_clipvalue",
        "adam_uniter_vqa_clipnorm",
    ],
)
def test_optimizer_steps(vlp_shared, case):
    settings = cases(vlp_shared)[case]
    expected = load_file(str(vlp_shared / "optim" / "expected.safetensors"))
    inputs = load_file(str(vlp_shared / "optim" / "inputs.safetensors"))
    cfg = recipe(settings["config"], settings["overrides"])
    model = Pair()
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(inputs[f"init/{name}"])
    optimizer, clip = build_optimizer(cfg, model), clip_gradients(cfg)
    steps = sorted({key.split("/")[1] for key in inputs if key.startswith("grad/")}, key=int)
    for step in steps:
        for name, parameter in parameters.items():
            parameter.grad = inputs[f"grad/{step}/{name}"].clone()
        if clip is not None:
            clip(model.parameters())
        optimizer.step()
        for name, parameter in parameters.items():
            reference = expected[f"{case}/{step}/{name}"]
            torch.testing.assert_close(
                parameter.detach(), reference, atol=1e-6, rtol=1e-5, msg=f"step {step}, {name}"
            )


def test_every_case_is_tested(vlp_shared):
    names = {"bertadam_vcr", "adamw_tden_pretrain", "adamw_uniter_pretrain_clipnorm"}
    names |= {"adam_tden_caption_clipvalue", "adam_uniter_vqa_clipnorm"}
    assert set(cases(vlp_shared)) == names
    expected = load_file(str(vlp_shared / "optim" / "expected.safetensors"))
    assert {key[3:] for key in expected if key.startswith("lr/")} == set(RECIPES)


@pytest.mark.parametrize("name", ["tden-pretrain", "uniter-pretrain", "tden-vcr", "uniter-vcr"])
def test_weight_decay(vlp_shared, load_task, name):
    """The same parameters are decayed, each counted once."""
    groups = json.loads((vlp_shared / "optim" / "weight_decay_groups.json").read_text())[name]
    task = load_task(name)
    optimizer = build_optimizer(recipe(name), task.model)
    names = {id(parameter): key for key, parameter in task.model.named_parameters()}
    found = {True: [], False: []}
    for group in optimizer.param_groups:
        keys = [names[id(parameter)] for parameter in group["params"]]
        found[group["weight_decay"] > 0] += keys
    assert sorted(found[True]) == groups["decayed"]
    assert sorted(found[False]) == groups["not_decayed"]
    assert len(found[True]) + len(found[False]) == groups["n_groups"]
