"""A step during the backward pass gives the weights of a step behind it."""

import pytest
import torch
from torch import nn

from xmodaler.config import get_cfg
from xmodaler.optim import build_optimizer, build_step_in_backward
from xmodaler.utils.errors import UserError


def network():
    torch.manual_seed(0)
    tied = nn.Linear(5, 5)
    # The tied layer is used twice, one layer not at all.
    return nn.ModuleDict({"tied": tied, "norm": nn.LayerNorm(5), "idle": nn.Linear(2, 2)})


def loss_of(model, x):
    return model["tied"](model["norm"](torch.tanh(model["tied"](x)))).square().sum()


def settings(**changes):
    cfg = get_cfg()
    cfg.SOLVER.NAME, cfg.SOLVER.BASE_LR, cfg.SOLVER.GRAD_CLIP = "AdamW", 0.1, -1.0
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.STEP_IN_BACKWARD = 0.1, True
    for key, value in changes.items():
        cfg.SOLVER[key] = value
    return cfg


@pytest.mark.parametrize("name", ["AdamW", "Adam", "BertAdam", "SGD", "RAdam"])
@pytest.mark.parametrize("limit", [-1.0, 0.01])
def test_the_weights_are_those_of_an_ordinary_step(name, limit):
    cfg = settings(NAME=name, GRAD_CLIP=limit, GRAD_CLIP_TYPE="value")
    model, reference = network(), network()
    optimizer, expected = build_optimizer(cfg, model), build_optimizer(cfg, reference)
    stepper = build_step_in_backward(cfg, optimizer)
    for number in range(3):
        x = torch.randn(4, 5)
        loss_of(model, x).backward()
        assert all(parameter.grad is None for parameter in model.parameters())
        loss_of(reference, x).backward()
        if limit > 0:
            nn.utils.clip_grad_value_(reference.parameters(), limit)
        expected.step()
        expected.zero_grad()
        for group, other in zip(optimizer.param_groups, expected.param_groups, strict=True):
            group["lr"] = other["lr"] = 0.05 / (number + 1)
        for one, other in zip(model.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)
    assert len(optimizer.state_dict()["state"]) == len(expected.state_dict()["state"])
    stepper.remove()
    before = model["tied"].weight.clone()
    loss_of(model, x).backward()
    assert model["tied"].weight.grad is not None and torch.equal(model["tied"].weight, before)


@pytest.mark.parametrize(
    ("key", "value"), [("GRAD_CLIP", 1.0), ("ACCUM_STEPS", 2), ("PRECISION", "fp16")]
)
def test_what_needs_all_gradients_is_refused(key, value):
    cfg = settings(**{key: value})
    with pytest.raises(UserError, match="STEP_IN_BACKWARD"):
        build_step_in_backward(cfg, build_optimizer(cfg, network()))


def test_it_is_off_by_default():
    cfg = get_cfg()
    assert build_step_in_backward(cfg, build_optimizer(cfg, network())) is None
