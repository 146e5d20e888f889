"""Groups of parameters, steps of the optimizer and learning rates against the reference."""

import re
from typing import Any

import pytest
import torch
from torch import nn

from xmodaler.checkpoint.x2vlm import our_name
from xmodaler.config import get_cfg
from xmodaler.lr_scheduler import build_lr_scheduler
from xmodaler.optim import FineTunedAdamW, build_optimizer_params, named_optimizer_params

FAMILY = "optim-schedule"
NO_DECAY = ["bias", "LayerNorm.weight", "norm.weight", "norm1.weight", "norm2.weight"]
FUSED_TEXT = ("token_embed.", "encoder.text_layers.", "encoder.fusion_layers.", "predictor.")
"""Our parts of the text tower of the layout in which it fuses as well."""
SPLIT_TEXT = ("token_embed.", "encoder.text_layers.")


@pytest.fixture(scope="module")
def cases(fixture: Any) -> dict[str, Any]:
    return fixture.json("optim.json")


def schedule_of(case: dict[str, Any], rate: float) -> Any:
    """Our schedule of the reference's arguments, with a learning rate of 1."""
    arguments, cfg = case["args"], get_cfg()
    cfg.LR_SCHEDULER.NAME = "WarmupLinearSteps"
    cfg.LR_SCHEDULER.MIN_LR = float(rate)
    warmup = arguments["num_warmup_steps"]
    key = "WARMUP_SHARE" if isinstance(warmup, float) else "WARMUP"
    cfg.LR_SCHEDULER[key] = warmup
    cfg.SOLVER.EPOCH = arguments["epochs"]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    return build_lr_scheduler(cfg, optimizer, arguments["step_per_epoch"])


def test_learning_rates(cases):
    for case in cases["schedules"]:
        for rate, factors in (
            (case["args"].get("min_rate", 0), case["factor"]),
            (0, case["factor_after_pretrain_reinit"]),
        ):
            schedule = schedule_of(case, rate)
            assert schedule.t_total == case["num_training_steps"]
            assert schedule.warmup_steps == case["num_warmup_steps"]
            found = [schedule.lr_lambda(step) for step in case["steps"]]
            assert found == pytest.approx(factors, abs=1e-12)


def expected_settings(case: dict[str, Any]) -> dict[str, tuple[float, float]]:
    return {
        name: (group["lr"], group["weight_decay"])
        for group in case["groups"]
        for name in group["params"]
    }


def found_settings(
    names: list[str], arguments: dict[str, Any], rates: list[tuple[str, float]], fresh: list[str]
) -> dict[str, tuple[float, float]]:
    parameters = {name: nn.Parameter(torch.zeros(1)) for name in names}
    groups = named_optimizer_params(
        parameters.items(),
        arguments["lr"],
        arguments["weight_decay"],
        NO_DECAY,
        rates,
        fresh,
        arguments["lr_mult"],
    )
    owners = {id(parameter): name for name, parameter in parameters.items()}
    return {
        owners[id(parameter)]: (group["lr"], group["weight_decay"])
        for group in groups
        for parameter in group["params"]
    }


def rates_of(arguments: dict[str, Any], parts: dict[str, tuple[str, ...]]) -> list[Any]:
    return [
        (part, arguments[key]) for key, names in parts.items() if key in arguments for part in names
    ]


def test_groups_of_released_names(cases):
    towers = {
        "vision_lr": ("vision_encoder",),
        "text_lr": ("text_encoder",),
        "cross_lr": ("cross_encoder",),
    }
    for tag, case in cases["param_groups"].items():
        expected, arguments = expected_settings(case), case["optimizer_args"]
        rates = rates_of(arguments, towers)
        found = found_settings(list(expected), arguments, rates, case["init_params"])
        assert found == expected, tag


def test_groups_of_our_names(cases):
    for tag, case in cases["param_groups"].items():
        expected, arguments = expected_settings(case), case["optimizer_args"]
        is_split = any(name.startswith("cross_encoder.") for name in expected)
        layers = text_layers(list(expected))
        ours = {our_name(name, layers): name for name in expected}
        towers = {
            "vision_lr": ("visual_embed.tower.",),
            "text_lr": SPLIT_TEXT if is_split else FUSED_TEXT,
            "cross_lr": ("encoder.fusion_layers.",),
        }
        fresh = [our_name(name, layers) for name in case["init_params"]]
        found = found_settings(list(ours), arguments, rates_of(arguments, towers), fresh)
        assert {ours[name]: settings for name, settings in found.items()} == expected, tag


def text_layers(names: list[str]) -> int:
    """How many layers of the text tower have no attention to pictures."""
    pattern = re.compile(r"text_encoder\..*encoder\.layer\.(\d+)\.(\w+)\.")
    layers: dict[int, set[str]] = {}
    for name in names:
        if found := pattern.match(name):
            layers.setdefault(int(found[1]), set()).add(found[2])
    return sum("crossattention" not in parts for parts in layers.values())


def test_steps(fixture, cases):
    inputs, expected = fixture.inputs, fixture.expected
    betas, eps = (
        cases["param_groups"]["pretrain"]["betas"],
        cases["param_groups"]["pretrain"]["eps"],
    )
    p, q = (nn.Parameter(inputs[name].clone()) for name in ("p0", "q0"))
    groups = [
        {"params": [p], "lr": 1e-2, "weight_decay": 0.01},
        {"params": [q], "lr": 2e-2, "weight_decay": 0.0},
    ]
    optimizer = FineTunedAdamW(groups, betas=betas, eps=eps)
    for step in range(3):
        p.grad, q.grad = (inputs[f"grad_{name}_{step}"] for name in "pq")
        optimizer.step()
        for name, parameter in (("p", p), ("q", q)):
            torch.testing.assert_close(
                parameter.detach(), expected[f"{name}_{step + 1}"], atol=1e-6, rtol=1e-5
            )


def test_the_config_builds_this_optimizer():
    cfg = get_cfg()
    cfg.merge_from_list(["SOLVER.NAME", "FineTunedAdamW", "SOLVER.BETAS", [0.9, 0.98]])
    optimizer = build_optimizer_params(cfg, [nn.Parameter(torch.zeros(2))])
    assert isinstance(optimizer, FineTunedAdamW) and optimizer.defaults["betas"] == (0.9, 0.98)
