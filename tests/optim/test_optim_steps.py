"""Every optimizer against its update rule, written out for single numbers."""

import math

import pytest
import torch

from xmodaler import optim

LR, B1, B2, EPS, DECAY = 0.05, 0.8, 0.9, 1e-8, 0.03
STEPS = 12


def gradient(step: int, p: float) -> float:
    """A gradient that depends on the parameter and changes sign."""
    return 0.7 * p + math.sin(2.3 * step)


def adam(p, decoupled, amsgrad=False):
    m = v = v_max = 0.0
    for t in range(1, STEPS + 1):
        g = gradient(t, p)
        if decoupled:
            p -= LR * DECAY * p
        else:
            g += DECAY * p
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g * g
        v_max = max(v_max, v)
        second = (v_max if amsgrad else v) / (1 - B2**t)
        p -= LR * m / (1 - B1**t) / (math.sqrt(second) + EPS)
    return p


def adamax(p):
    m = u = 0.0
    for t in range(1, STEPS + 1):
        g = gradient(t, p) + DECAY * p
        m = B1 * m + (1 - B1) * g
        u = max(B2 * u, abs(g) + EPS)
        p -= LR / (1 - B1**t) * m / u
    return p


def radam(p):
    m = v = 0.0
    n_inf = 2 / (1 - B2) - 1
    rectified = plain = 0
    for t in range(1, STEPS + 1):
        g = gradient(t, p)
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g * g
        n = n_inf - 2 * t * B2**t / (1 - B2**t)
        p -= DECAY * LR * p
        if n >= 5:
            ratio = (n - 4) / (n_inf - 4) * (n - 2) / n * n_inf / (n_inf - 2)
            step = math.sqrt((1 - B2**t) * ratio) / (1 - B1**t)
            p -= LR * step * m / (math.sqrt(v) + EPS)
            rectified += 1
        else:
            p -= LR / (1 - B1**t) * m
            plain += 1
    assert rectified and plain
    return p


def bert_adam(p):
    m = v = 0.0
    for t in range(1, STEPS + 1):
        g = gradient(t, p)
        g *= min(1.0, 1.0 / (abs(g) + 1e-6))
        m = B1 * m + (1 - B1) * g
        v = B2 * v + (1 - B2) * g * g
        p -= LR * (m / (math.sqrt(v) + 1e-6) + DECAY * p)
    return p


def sgd(p, momentum=0.9, dampening=0.0, nesterov=False):
    buffer = None
    for t in range(1, STEPS + 1):
        g = gradient(t, p) + DECAY * p
        buffer = g if buffer is None else momentum * buffer + (1 - dampening) * g
        p -= LR * (g + momentum * buffer if nesterov else buffer)
    return p


def rmsprop(p, alpha=0.95, momentum=0.5, centered=False):
    square = mean = buffer = 0.0
    for t in range(1, STEPS + 1):
        g = gradient(t, p) + DECAY * p
        square = alpha * square + (1 - alpha) * g * g
        mean = alpha * mean + (1 - alpha) * g
        variance = square - mean * mean if centered else square
        buffer = momentum * buffer + g / (math.sqrt(variance) + EPS)
        p -= LR * buffer
    return p


def adagrad(p, lr_decay=0.1, initial=0.2):
    total = initial
    for t in range(1, STEPS + 1):
        g = gradient(t, p) + DECAY * p
        total += g * g
        p -= LR / (1 + (t - 1) * lr_decay) * g / (math.sqrt(total) + EPS)
    return p


ADAM = {"betas": (B1, B2), "eps": EPS}
CASES = {
    "Adam": (optim.Adam, ADAM, lambda p: adam(p, decoupled=False)),
    "Adam-amsgrad": (optim.Adam, {**ADAM, "amsgrad": True}, lambda p: adam(p, False, True)),
    "Adam-loop": (optim.Adam, {**ADAM, "fused": False}, lambda p: adam(p, decoupled=False)),
    "Adam-foreach": (optim.Adam, {**ADAM, "foreach": True}, lambda p: adam(p, decoupled=False)),
    "AdamW": (optim.AdamW, ADAM, lambda p: adam(p, decoupled=True)),
    "Adamax": (optim.Adamax, ADAM, adamax),
    "RAdam": (optim.RAdam, ADAM, radam),
    "PlainRAdam": (optim.PlainRAdam, ADAM, radam),
    "BertAdam": (optim.BertAdam, {"b1": B1, "b2": B2}, bert_adam),
    "SGD": (optim.SGD, {"momentum": 0.9}, sgd),
    "SGD-dampening": (optim.SGD, {"momentum": 0.9, "dampening": 0.3}, lambda p: sgd(p, 0.9, 0.3)),
    "SGD-nesterov": (
        optim.SGD,
        {"momentum": 0.9, "nesterov": True},
        lambda p: sgd(p, nesterov=True),
    ),
    "RMSprop": (optim.RMSprop, {"alpha": 0.95, "momentum": 0.5, "eps": EPS}, rmsprop),
    "RMSprop-centered": (
        optim.RMSprop,
        {"alpha": 0.95, "momentum": 0.5, "eps": EPS, "centered": True},
        lambda p: rmsprop(p, centered=True),
    ),
    "Adagrad": (
        optim.Adagrad,
        {"lr_decay": 0.1, "initial_accumulator_value": 0.2, "eps": EPS},
        adagrad,
    ),
}


def run(optimizer_class, settings, starts):
    params = [torch.nn.Parameter(torch.tensor([p], dtype=torch.float64)) for p in starts]
    optimizer = optimizer_class(params, lr=LR, weight_decay=DECAY, **settings)
    for t in range(1, STEPS + 1):
        for p in params:
            p.grad = 0.7 * p.detach() + math.sin(2.3 * t)
        optimizer.step()
    return [p.item() for p in params]


@pytest.mark.parametrize("name", CASES)
def test_step_follows_the_formula(name):
    optimizer_class, settings, formula = CASES[name]
    starts = [1.5, -0.4, 2.0]
    expected = [formula(p) for p in starts]
    assert run(optimizer_class, settings, starts) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_bert_adam_clips_each_parameter_by_itself():
    large, small = torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2))
    optimizer = optim.BertAdam([large, small], lr=1.0, weight_decay=0.0)
    large.grad, small.grad = torch.tensor([30.0, 40.0]), torch.tensor([0.3, 0.4])
    optimizer.step()
    assert torch.allclose(large.grad, torch.tensor([0.6, 0.8]))
    assert torch.equal(small.grad, torch.tensor([0.3, 0.4]))
    assert set(optimizer.state[large]) == {"next_m", "next_v"}
    assert {"b1", "b2", "e"} <= set(optimizer.param_groups[0])


@pytest.mark.parametrize("optimizer_class", [optim.Adam, optim.AdamW])
def test_fused_step_survives_foreign_memory_layouts(optimizer_class):
    """A transposed gradient, or a state saved under another layout, changes no number."""

    def train(fused, transposed, relaid):
        torch.manual_seed(0)
        p = torch.nn.Parameter(torch.randn(3, 5))
        optimizer = optimizer_class([p], lr=0.1, fused=fused)
        for step in range(4):
            gradient = torch.randn(3, 5)
            p.grad = gradient.t().contiguous().t() if transposed else gradient
            optimizer.step()
            if relaid and step == 1:
                state = optimizer.state_dict()
                for name in ("exp_avg", "exp_avg_sq"):
                    state["state"][0][name] = state["state"][0][name].t().contiguous().t()
                optimizer.load_state_dict(state)
        return p.detach()

    expected = train(False, False, False)
    assert torch.allclose(train(None, False, False), expected, atol=1e-6)
    assert torch.allclose(train(None, True, False), expected, atol=1e-6)
    assert torch.allclose(train(None, False, True), expected, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_state_round_trip_continues_exactly(name, tmp_path):
    optimizer_class, settings, _ = CASES[name]

    def make():
        torch.manual_seed(3)
        p = torch.nn.Parameter(torch.randn(4, 3))
        return p, optimizer_class([p], lr=LR, weight_decay=DECAY, **settings)

    def steps(p, optimizer, first, last):
        for t in range(first, last):
            p.grad = torch.sin(p.detach() * 3 + t)
            optimizer.step()

    p, optimizer = make()
    steps(p, optimizer, 0, 10)

    q, half = make()
    steps(q, half, 0, 5)
    torch.save({"p": q.detach(), "optimizer": half.state_dict()}, tmp_path / "state.pth")
    saved = torch.load(tmp_path / "state.pth", weights_only=True)
    r, resumed = make()
    with torch.no_grad():
        r.copy_(saved["p"])
    resumed.load_state_dict(saved["optimizer"])
    steps(r, resumed, 5, 10)
    assert torch.equal(p, r)


@pytest.mark.parametrize("optimizer_class", [optim.Adam, optim.AdamW])
def test_a_state_of_other_shapes_is_refused(optimizer_class):
    """The fused step would read beyond the end of such a state."""
    small, large = torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(400, 300))
    saved = optimizer_class([small])
    small.grad = torch.ones_like(small)
    saved.step()
    optimizer = optimizer_class([large])
    with pytest.raises(ValueError, match=r"\(400, 300\).*exp_avg \(2, 3\)"):
        optimizer.load_state_dict(saved.state_dict())
    large.grad = torch.ones_like(large)
    optimizer.step()
    assert torch.isfinite(large).all()
