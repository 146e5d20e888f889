"""Parameter groups, construction from a config, and clipping."""

import pytest
import torch
from torch import nn

from xmodaler import optim
from xmodaler.config import get_cfg
from xmodaler.optim.build import SOLVER_REGISTRY
from xmodaler.utils.errors import UserError

NAMES = [
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "BertAdam",
    "FineTunedAdamW",
    "PlainRAdam",
    "RAdam",
    "RMSprop",
    "SGD",
]


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.linear = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.lstm = nn.LSTMCell(4, 4)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.head = nn.Linear(4, 7)
        self.head.weight = self.embedding.weight

    def forward(self, ids):
        x = self.norm(self.linear(self.embedding(ids)))
        return self.head(self.lstm(x, (x, x))[0])


def config(*options):
    cfg = get_cfg()
    cfg.merge_from_list(list(options))
    return cfg


def total_norm(params):
    return torch.cat([p.grad.flatten() for p in params]).norm()


def names_of(model, group):
    names = {id(p): n for n, p in model.named_parameters()}
    return [names[id(p)] for p in group["params"]]


def test_default_config_gives_one_group():
    model = Tiny()
    optimizer = optim.build_optimizer(config(), model)
    assert len(optimizer.param_groups) == 1
    group = optimizer.param_groups[0]
    assert names_of(model, group) == [
        "embedding.weight",
        "linear.weight",
        "linear.bias",
        "norm.weight",
        "norm.bias",
        "lstm.weight_ih",
        "lstm.weight_hh",
        "lstm.bias_ih",
        "lstm.bias_hh",
        "head.bias",
    ]
    assert group["lr"] == 0.0005 and group["weight_decay"] == 0.0


def test_groups_follow_names_where_the_config_says_so():
    model = Tiny()
    cfg = config(
        *("SOLVER.NO_DECAY", ["bias", "norm.weight"], "SOLVER.RATES", [["lstm", 0.2]]),
        *("SOLVER.FRESH", ["head.", "lstm"], "SOLVER.FRESH_LR_FACTOR", 2.0),
        *("SOLVER.BASE_LR", 0.1, "SOLVER.WEIGHT_DECAY", 0.5),
    )
    groups = optim.build_optimizer(cfg, model).param_groups
    table = {(g["lr"], g["weight_decay"]): names_of(model, g) for g in groups}
    assert table == {
        (0.1, 0.5): ["embedding.weight", "linear.weight"],
        (0.1, 0.0): ["linear.bias", "norm.weight", "norm.bias"],
        (0.2, 0.5): ["lstm.weight_ih", "lstm.weight_hh"],
        (0.2, 0.0): ["lstm.bias_ih", "lstm.bias_hh", "head.bias"],
    }


def test_rates_that_are_no_pairs_are_refused():
    with pytest.raises(UserError, match="a pair of a part"):
        optim.build_optimizer(config("SOLVER.RATES", ["lstm"]), Tiny())


def test_groups_follow_the_table():
    model = Tiny()
    groups = optim.get_default_optimizer_params(
        model,
        base_lr=0.1,
        weight_decay=0.5,
        weight_decay_norm=0.25,
        bias_lr_factor=2.0,
        weight_decay_bias=0.0,
    )
    table = {(g["lr"], g["weight_decay"]): names_of(model, g) for g in groups}
    assert table == {
        (0.1, 0.5): [
            "embedding.weight",
            "linear.weight",
            "lstm.weight_ih",
            "lstm.weight_hh",
            "lstm.bias_ih",
            "lstm.bias_hh",
        ],
        (0.2, 0.0): ["linear.bias", "head.bias"],
        (0.1, 0.25): ["norm.weight", "norm.bias"],
    }


def test_bias_decay_defaults_to_weight_decay_and_overrides_win():
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    groups = optim.get_default_optimizer_params(
        model,
        0.1,
        0.5,
        0.25,
        overrides={"bias": {"lr": 9.0, "betas": (0.5, 0.6)}},
    )
    assert [(g["lr"], g["weight_decay"], g.get("betas")) for g in groups] == [
        (0.1, 0.5, None),
        (9.0, 0.5, (0.5, 0.6)),
        (0.1, 0.25, None),
        (9.0, 0.25, (0.5, 0.6)),
    ]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("clip", ["value", "norm", "off"])
def test_every_optimizer_builds_clips_and_steps(name, clip):
    torch.manual_seed(0)
    limit = -1.0 if clip == "off" else 0.001
    kind = "anything" if clip == "off" else clip
    cfg = config("SOLVER.NAME", name, "SOLVER.GRAD_CLIP", limit, "SOLVER.GRAD_CLIP_TYPE", kind)
    model = Tiny()
    before = [p.detach().clone() for p in model.parameters()]
    optimizer = optim.build_optimizer(cfg, model)
    clipper = optim.clip_gradients(cfg)
    model(torch.tensor([1, 2, 3])).square().sum().backward()
    params = [p for p in model.parameters() if p.requires_grad]
    raw = total_norm(params)
    if clipper is not None:
        norm = clipper(params)
        assert (norm is None) == (clip == "value")
        if clip == "norm":
            assert torch.allclose(norm, raw)
            clipped = total_norm(params)
            assert clipped.item() == pytest.approx(0.001, rel=1e-3)
        else:
            assert max(p.grad.abs().max().item() for p in params) <= 0.001 + 1e-9
    optimizer.step()
    for (key, p), old in zip(model.named_parameters(), before, strict=True):
        assert torch.equal(p, old) == key.startswith("frozen")


@pytest.mark.parametrize("name", NAMES)
def test_config_and_keywords_build_the_same(name):
    cfg = config(
        "SOLVER.NAME", name, "SOLVER.BASE_LR", 0.02, "SOLVER.WEIGHT_DECAY", 0.1,
        "SOLVER.BETAS", [0.7, 0.8], "SOLVER.EPS", 1e-6, "SOLVER.LR_DECAY", 0.3,
        "SOLVER.INITIAL_ACCUMULATOR_VALUE", 0.4, "SOLVER.ALPHA", 0.6, "SOLVER.NESTEROV", 1.0,
    )  # fmt: skip
    solver_class = SOLVER_REGISTRY.get(name)
    params = [nn.Parameter(torch.zeros(2))]
    keywords = solver_class.from_config(cfg, params)
    built, explicit = solver_class(cfg, params), solver_class(**keywords)
    built_group, explicit_group = built.param_groups[0], explicit.param_groups[0]
    assert built_group == explicit_group
    assert built_group["lr"] == 0.02 and built_group["weight_decay"] == 0.1


def test_sgd_reads_a_float_nesterov():
    cfg = config("SOLVER.NAME", "SGD", "SOLVER.NESTEROV", 1.0)
    optimizer = optim.build_optimizer(cfg, nn.Linear(2, 2))
    assert optimizer.param_groups[0]["nesterov"] is True


def test_adam_is_fused_where_that_is_valid():
    floats = [nn.Parameter(torch.zeros(2))]
    assert optim.Adam(floats).param_groups[0]["fused"] is True
    assert not optim.Adam(floats, foreach=True).param_groups[0]["fused"]
    complexes = [nn.Parameter(torch.zeros(2, dtype=torch.complex64))]
    assert not optim.Adam(complexes).param_groups[0]["fused"]
    named = list(nn.Linear(2, 2).named_parameters())
    assert optim.AdamW(named).param_groups[0]["fused"] is True


def test_user_mistakes_are_one_sentence():
    with pytest.raises(UserError, match="no trainable parameter"):
        optim.build_optimizer(config(), nn.Linear(2, 2).requires_grad_(False))
    with pytest.raises(UserError, match="SOLVER does not suit the optimizer Adam"):
        optim.build_optimizer(config("SOLVER.BASE_LR", -1.0), nn.Linear(2, 2))
    with pytest.raises(KeyError, match="Adam"):
        optim.build_optimizer(config("SOLVER.NAME", "Adamm"), nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"GRAD_CLIP_TYPE is 'Norm'.*'value', 'norm'"):
        optim.clip_gradients(config("SOLVER.GRAD_CLIP_TYPE", "Norm"))
    assert (
        optim.clip_gradients(config("SOLVER.GRAD_CLIP_TYPE", "Norm", "SOLVER.GRAD_CLIP", 0.0))
        is None
    )


def test_clipping_inside_the_step():
    cfg = config("SOLVER.GRAD_CLIP", 0.5, "SOLVER.GRAD_CLIP_TYPE", "value")
    for wrap_class in (True, False):
        p = nn.Parameter(torch.zeros(2))
        if wrap_class:
            clipping_class = optim.maybe_add_gradient_clipping(cfg, optim.SGD)
            assert clipping_class.__name__ == "SGDWithGradientClip"
            assert issubclass(clipping_class, optim.SGD)
            optimizer = clipping_class([p], lr=1.0)
        else:
            plain = optim.SGD([p], lr=1.0)
            optimizer = optim.maybe_add_gradient_clipping(cfg, plain)
            assert optimizer is plain
        p.grad = torch.tensor([3.0, -0.25])
        optimizer.step()
        assert torch.equal(p.detach(), torch.tensor([-0.5, 0.25]))
    off = config("SOLVER.GRAD_CLIP", 0.0)
    assert optim.maybe_add_gradient_clipping(off, optim.SGD) is optim.SGD


def test_norm_clipping_is_global_with_the_given_order():
    a, b = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
    a.grad, b.grad = torch.tensor([3.0]), torch.tensor([-5.0])
    clipper = optim.GradientClipper("norm", 4.0, norm_type=1.0)
    assert clipper([a, b]).item() == pytest.approx(8.0)
    assert a.grad.item() == pytest.approx(1.5, rel=1e-5)
    assert b.grad.item() == pytest.approx(-2.5, rel=1e-5)
