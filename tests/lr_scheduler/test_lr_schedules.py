"""Learning-rate sequences, and their exact continuation after a resume."""

import math
import warnings

import pytest
import torch

from xmodaler import lr_scheduler
from xmodaler.config import get_cfg
from xmodaler.utils.errors import UserError

E, EPOCHS = 4, 4
NAMES = [
    "StepLR",
    "MultiStepLR",
    "WarmupMultiStepLR",
    "WarmupConstant",
    "WarmupLinear",
    "WarmupLinearSteps",
    "WarmupCosine",
    "WarmupCosineWithHardRestarts",
    "NoamLR",
    "FixLR",
]


def config(name, **values):
    cfg = get_cfg()
    cfg.LR_SCHEDULER.NAME = name
    cfg.SOLVER.EPOCH = values.pop("EPOCH", EPOCHS)
    cfg.SOLVER.BASE_LR = 1.0
    cfg.LR_SCHEDULER.WARMUP = 1
    for key, value in values.items():
        setattr(cfg.LR_SCHEDULER, key, value)
    return cfg


def make(cfg, lrs=(1.0,)):
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in lrs]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    return optimizer, lr_scheduler.build_lr_scheduler(cfg, optimizer, E)


def advance(optimizer, scheduler, steps, group=0):
    """Learning rates at the next `steps` steps, the present one first."""
    sequence = []
    for _ in range(steps):
        sequence.append(optimizer.param_groups[group]["lr"])
        optimizer.step()
        scheduler.step()
    return sequence


def sequence(name, steps=17, **values):
    return advance(*make(config(name, **values)), steps)


def test_step_lr():
    expected = [0.8 ** (t // 8) for t in range(17)]
    assert sequence("StepLR", STEP_SIZE=2, GAMMA=0.8) == pytest.approx(expected, rel=1e-12)


def test_multi_step_lr_counts_epochs():
    expected = [1.0] * 4 + [0.5] * 8 + [0.25] * 5
    assert sequence("MultiStepLR", MILESTONES=(1, 3), GAMMA=0.5) == pytest.approx(expected)


@pytest.mark.parametrize("method", ["linear", "constant"])
def test_warmup_multi_step_lr(method):
    values = {"STEPS": (2, 3), "GAMMA": 0.5, "WARMUP_FACTOR": 0.2, "WARMUP_METHOD": method}
    warm = [0.2, 0.4, 0.6, 0.8] if method == "linear" else [0.2] * 4
    expected = warm + [1.0] * 4 + [0.5] * 4 + [0.25] * 5
    assert sequence("WarmupMultiStepLR", **values) == pytest.approx(expected)


def test_warmup_multi_step_lr_starts_at_zero_by_default():
    assert sequence("WarmupMultiStepLR")[:5] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_warmup_constant():
    assert sequence("WarmupConstant") == pytest.approx([0, 0.25, 0.5, 0.75] + [1.0] * 13)


def test_warmup_linear():
    observed = sequence("WarmupLinear")
    expected = [0, 0.25, 0.5, 0.75] + [(16 - t) / 12 for t in range(4, 16)] + [1e-5]
    assert observed == pytest.approx(expected, rel=1e-12)
    assert [round(x, 4) for x in observed[4:7]] == [1.0, 0.9167, 0.8333]
    assert round(observed[15], 4) == 0.0833


def test_warmup_cosine():
    observed = sequence("WarmupCosine")
    printed = [1.0, 0.98296, 0.93301, 0.85355, 0.75, 0.62941, 0.5]
    assert [round(x, 5) for x in observed[4:11]] == printed
    assert round(observed[15], 5) == 0.01704 and observed[16] == 1e-5
    assert sequence("WarmupCosine", steps=29)[28] == pytest.approx(1.0)


def test_warmup_cosine_with_hard_restarts():
    observed = sequence("WarmupCosineWithHardRestarts", steps=20)
    fall = [0.5 * (1 + math.cos(math.pi * p / 12)) for p in range(12)]
    assert observed == pytest.approx([0, 0.25, 0.5, 0.75, *fall, 0, 0, 0, 0])


def test_hard_restarts_restart():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = lr_scheduler.WarmupCosineWithHardRestarts(
        optimizer=optimizer, warmup_steps=0, t_total=8, cycles=2.0
    )
    fall = [0.5 * (1 + math.cos(math.pi * p / 4)) for p in range(4)]
    assert advance(optimizer, scheduler, 9) == pytest.approx([*fall, *fall, 0])


def test_noam_ignores_the_base_rates():
    cfg = config("NoamLR", MODEL_SIZE=512, WARMUP=4, FACTOR=1.0)
    optimizer, scheduler = make(cfg, lrs=(1.0, 7.0))
    assert optimizer.param_groups[1]["lr"] == optimizer.param_groups[0]["lr"]
    observed = advance(optimizer, scheduler, 6)
    assert [round(x, 5) for x in observed] == [0.00552, 0.01105, 0.01657, 0.0221, 0.01976, 0.01804]


def test_fix_lr_and_group_factors():
    optimizer, scheduler = make(config("FixLR"), lrs=(1.0, 0.25))
    assert advance(optimizer, scheduler, 5, group=1) == [0.25] * 5
    optimizer, scheduler = make(config("WarmupConstant"), lrs=(1.0, 0.5))
    assert advance(optimizer, scheduler, 5, group=1) == [0, 0.125, 0.25, 0.375, 0.5]


def test_no_warmup_starts_at_the_full_rate():
    for name in ("WarmupConstant", "WarmupLinear", "WarmupCosine", "WarmupCosineWithHardRestarts"):
        assert sequence(name, WARMUP=0)[0] == 1.0


def test_max_iter_sets_the_length_of_the_run():
    cfg = config("WarmupLinear")
    cfg.SOLVER.MAX_ITER = 8
    assert advance(*make(cfg), 9) == pytest.approx([0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 1e-5])


@pytest.mark.parametrize("name", NAMES)
def test_resume_continues_exactly(name, tmp_path):
    cfg = config(name, MODEL_SIZE=64, MILESTONES=(1, 2), STEPS=(1, 2), STEP_SIZE=1, GAMMA=0.7)
    whole = advance(*make(cfg), 17)
    optimizer, scheduler = make(cfg)
    first = advance(optimizer, scheduler, 7)
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(state, tmp_path / "state.pth")
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    optimizer, scheduler = make(cfg)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    assert scheduler.get_last_lr() == [optimizer.param_groups[0]["lr"]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert first + advance(optimizer, scheduler, 10) == whole


def test_a_longer_run_follows_the_new_length():
    optimizer, scheduler = make(config("WarmupLinear"))
    advance(optimizer, scheduler, 10)
    state = scheduler.state_dict()
    longer = config("WarmupLinear", EPOCH=8)
    optimizer, scheduler = make(longer)
    scheduler.load_state_dict(state)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx((32 - 11) / 28)


def test_states_of_torch_classes_load():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.5)
    for _ in range(9):
        optimizer.step()
        reference.step()
    state = reference.state_dict()
    optimizer, scheduler = make(config("StepLR", STEP_SIZE=1, GAMMA=0.5))
    scheduler.load_state_dict(state)
    scheduler.step()
    assert scheduler.last_epoch == 10
    assert optimizer.param_groups[0]["lr"] == 0.25


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("NoamLR", {"WARMUP": 0, "MODEL_SIZE": 512}, "LR_SCHEDULER.WARMUP is 0"),
        ("NoamLR", {"WARMUP": 10}, "LR_SCHEDULER.MODEL_SIZE is -1"),
        ("WarmupMultiStepLR", {"STEPS": (3, 2)}, "increasing order"),
        ("WarmupMultiStepLR", {"WARMUP_METHOD": "sine"}, "'linear' or 'constant'"),
        ("StepLR", {"STEP_SIZE": 0}, "STEP_SIZE must be >= 1"),
        ("StepLr", {}, "StepLR"),
    ],
)
def test_user_mistakes_are_one_sentence(name, values, message):
    with pytest.raises(UserError, match=message):
        make(config(name, **values))


def test_an_epoch_without_iterations_is_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(UserError, match="at least one full batch"):
        lr_scheduler.build_lr_scheduler(config("FixLR"), optimizer, 0)
