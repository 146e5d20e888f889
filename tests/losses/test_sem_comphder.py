"""The losses of COS-Net against their formulas, word by word and class by class."""

import math

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.losses import SemComphderLoss, build_losses
from xmodaler.utils.errors import UserError

CLASSES, SLOTS = 5, 2


def make_loss(filter_weight=1.0, reconstruct_weight=1.0):
    return SemComphderLoss(
        num_classes=CLASSES,
        slot_size=SLOTS,
        filter_weight=filter_weight,
        reconstruct_weight=reconstruct_weight,
    )


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    return {
        kfg.SEMANTICS_PRED: 3 * torch.randn(3, SLOTS + 4, CLASSES + 1, generator=generator),
        kfg.SEMANTICS_LABELS: torch.tensor([[0, 5, 3, -1], [5, 5, -1, -1], [4, 1, 2, 0]]),
        kfg.SEMANTICS_MISS_LABELS: torch.tensor(
            [[0, 1, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 1, 0]]
        ),
    }


def test_filter_loss_is_a_weighted_cross_entropy(outputs):
    total = weights = 0.0
    for row, labels in enumerate(outputs[kfg.SEMANTICS_LABELS].tolist()):
        for word, label in enumerate(labels):
            if label < 0:
                continue
            logits = outputs[kfg.SEMANTICS_PRED][row, SLOTS + word]
            weight = 30.0 if label == CLASSES else 1.0
            total -= weight * math.log(logits.softmax(-1)[label])
            weights += weight
    found = make_loss(filter_weight=0.5)(outputs)["filter_loss"]
    assert found.item() == pytest.approx(0.5 * total / weights, rel=1e-5)


def test_reconstruct_loss_is_asymmetric(outputs):
    total = 0.0
    for row, missing in enumerate(outputs[kfg.SEMANTICS_MISS_LABELS].tolist()):
        for label, truth in enumerate(missing):
            x = outputs[kfg.SEMANTICS_PRED][row, :SLOTS, label].sigmoid().max().item()
            absent = min(1 - x + 0.05, 1.0)
            gain = math.log(x) if truth else (1 - absent) ** 5 * math.log(absent)
            total -= gain / 3
    found = make_loss(reconstruct_weight=0.1)(outputs)["reconstruct_loss"]
    assert found.item() == pytest.approx(0.1 * total, rel=1e-5)


def test_focus_is_held_constant(outputs):
    """Only the logarithm of the negative side is differentiated."""
    logits = outputs[kfg.SEMANTICS_PRED].clone().requires_grad_()
    value = make_loss(filter_weight=0.0)({**outputs, kfg.SEMANTICS_PRED: logits})
    (grad,) = torch.autograd.grad(value["reconstruct_loss"], logits)
    assert not grad[:, SLOTS:].any()
    for row in range(3):
        for label in range(CLASSES + 1):
            x, slot = logits[row, :SLOTS, label].sigmoid().max(0)
            absent = min(1 - x.item() + 0.05, 1.0)
            if outputs[kfg.SEMANTICS_MISS_LABELS][row, label]:
                slope = -(1 - x)
            elif absent == 1.0:
                slope = torch.zeros(())
            else:
                slope = (1 - absent) ** 5 / absent * x * (1 - x)
            assert grad[row, slot, label].item() == pytest.approx(slope.item() / 3, abs=1e-6)


def test_gradients_stay_off_where_they_are_off(outputs):
    with torch.no_grad():
        losses = make_loss()(outputs)
        assert not torch.is_grad_enabled()
    assert not any(loss.requires_grad for loss in losses.values())
    assert torch.is_grad_enabled()


def test_no_labelled_word_gives_zero(outputs):
    labels = torch.full_like(outputs[kfg.SEMANTICS_LABELS], -1)
    assert make_loss()({**outputs, kfg.SEMANTICS_LABELS: labels})["filter_loss"] == 0


def test_half_precision_logits_are_scored_in_full(outputs):
    half = {**outputs, kfg.SEMANTICS_PRED: outputs[kfg.SEMANTICS_PRED].bfloat16()}
    full = {**outputs, kfg.SEMANTICS_PRED: half[kfg.SEMANTICS_PRED].float()}
    for name, value in make_loss()(half).items():
        assert value.dtype == torch.float32 and value == make_loss()(full)[name]


def test_it_needs_the_words_of_cosnet():
    cfg = get_cfg()
    cfg.LOSSES.NAMES = ["SemComphderLoss"]
    with pytest.raises(UserError, match=r"set MODEL\.ENCODER to COSNetEncoder"):
        build_losses(cfg)


def test_missing_labels_are_named(outputs):
    del outputs[kfg.SEMANTICS_LABELS]
    with pytest.raises(UserError, match="SEMANTICS_LABELS is missing"):
        make_loss()(outputs)
