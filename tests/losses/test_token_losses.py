"""Losses on words: exact formulas, nothing changed, one mean over all processes."""

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.losses import (
    CrossEntropy,
    LabelSmoothing,
    RewardCriterion,
    add_loss_config,
    build_losses,
    build_rl_losses,
)
from xmodaler.utils.errors import UserError

WORDS = 11


def outputs(seed=0, rows=4, length=6, key="G"):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, length, WORDS, generator=generator, dtype=torch.double)
    targets = torch.randint(0, WORDS, (rows, length), generator=generator)
    targets[:, -2:] = -1
    targets[1] = -1
    return {f"{key}_LOGITS": logits.float().requires_grad_(), f"{key}_TARGET_IDS": targets}


def smoothed(logits, targets, epsilon, excluded=-1):
    """KL divergence written out word by word."""
    total, count = 0.0, 0
    log_probs = torch.log_softmax(logits.double(), dim=-1)
    for row, target in zip(log_probs.flatten(0, -2), targets.flatten().tolist(), strict=True):
        if target < 0:
            continue
        others = WORDS - 1 if excluded < 0 else WORDS - 2
        q = torch.full((WORDS,), epsilon / others, dtype=torch.double)
        if excluded >= 0:
            q[excluded] = 0
        q[target] = 1 - epsilon
        total = total + torch.where(q > 0, q * (q.clamp(min=1e-300).log() - row), 0.0).sum()
        count += 1
    return total / count


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.25, 0.9])
def test_label_smoothing_is_the_divergence(epsilon):
    batch = outputs()
    (value,) = LabelSmoothing(label_smoothing=epsilon)(batch).values()
    reference = smoothed(batch[kfg.G_LOGITS], batch[kfg.G_TARGET_IDS], epsilon)
    torch.testing.assert_close(value.double(), reference, atol=1e-5, rtol=1e-5)
    (grad,) = torch.autograd.grad(value, batch[kfg.G_LOGITS])
    (expected,) = torch.autograd.grad(reference, batch[kfg.G_LOGITS])
    torch.testing.assert_close(grad, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
def test_smoothing_can_leave_a_word_out(epsilon):
    batch = outputs()
    targets = batch[kfg.G_TARGET_IDS]
    targets[targets == 4] = 5
    (value,) = LabelSmoothing(label_smoothing=epsilon, excluded=4)(batch).values()
    reference = smoothed(batch[kfg.G_LOGITS], targets, epsilon, excluded=4)
    torch.testing.assert_close(value.double(), reference, atol=1e-5, rtol=1e-5)
    (grad,) = torch.autograd.grad(value, batch[kfg.G_LOGITS])
    (expected,) = torch.autograd.grad(reference, batch[kfg.G_LOGITS])
    torch.testing.assert_close(grad, expected, atol=1e-6, rtol=1e-4)


def test_a_perfect_model_has_no_smoothed_loss():
    targets = torch.tensor([[2, 0]])
    rest = torch.full((1, 2, WORDS), 0.1 / (WORDS - 1))
    logits = rest.scatter(2, targets[..., None], 0.9).log()
    loss = LabelSmoothing(label_smoothing=0.1)
    (value,) = loss({kfg.G_LOGITS: logits, kfg.G_TARGET_IDS: targets}).values()
    assert abs(value.item()) < 1e-6


@pytest.mark.parametrize("loss", [CrossEntropy(), LabelSmoothing(label_smoothing=0.1)])
def test_losses_share_a_batch_and_leave_it_alone(loss):
    batch = outputs()
    targets = batch[kfg.G_TARGET_IDS].clone()
    total = sum(v for one in (loss, CrossEntropy(), loss) for v in one(batch).values())
    total.backward()
    assert torch.equal(batch[kfg.G_TARGET_IDS], targets)
    ignored = targets < 0
    assert not batch[kfg.G_LOGITS].grad[ignored].any()
    assert batch[kfg.G_LOGITS].grad[~ignored].abs().sum(-1).all()


def test_names_of_both_heads():
    batch = {**outputs(), **outputs(1, key="U")}
    assert set(CrossEntropy()(batch)) == {"CrossEntropy Loss(G)", "CrossEntropy Loss(U)"}
    names = set(LabelSmoothing(label_smoothing=0.1)(batch))
    assert names == {"LabelSmoothing(G) loss", "LabelSmoothing(U) loss"}
    assert CrossEntropy()({kfg.G_LOGITS: batch[kfg.G_LOGITS]}) == {}


def test_a_batch_without_targets_has_loss_zero():
    batch = outputs()
    batch[kfg.G_TARGET_IDS] = torch.full_like(batch[kfg.G_TARGET_IDS], -1)
    for loss in (CrossEntropy(), LabelSmoothing(label_smoothing=0.1)):
        (value,) = loss(batch).values()
        value.backward()
        assert value.item() == 0


def test_half_precision_logits_are_summed_in_single():
    batch = outputs()
    batch[kfg.G_LOGITS] = batch[kfg.G_LOGITS].detach().bfloat16().requires_grad_()
    (value,) = CrossEntropy()(batch).values()
    assert value.dtype == torch.float32
    value.backward()
    assert batch[kfg.G_LOGITS].grad.dtype == torch.bfloat16


def test_mean_over_the_words_of_all_processes(monkeypatch):
    """Two processes with unequal word counts: the mean of their losses is the global mean."""
    one, other = outputs(0), outputs(1)
    other[kfg.G_TARGET_IDS][2:] = -1
    counts = [int((b[kfg.G_TARGET_IDS] >= 0).sum()) for b in (one, other)]
    assert counts[0] != counts[1]
    whole = {key: torch.cat([one[key], other[key]]) for key in one}
    mean = torch.tensor(sum(counts) / 2)
    for loss in (CrossEntropy(), LabelSmoothing(label_smoothing=0.1)):
        (expected,) = loss(whole).values()
        with monkeypatch.context() as patch:
            patch.setattr("xmodaler.utils.comm.mean_over_ranks", lambda count: mean)
            values = [next(iter(loss(b).values())) for b in (one, other)]
        torch.testing.assert_close(sum(values) / 2, expected)


def test_reward_criterion_counts_through_the_first_end():
    words = torch.tensor([[3, 0, 5, 0], [4, 4, 4, 4]])
    log_probs = torch.tensor([[-1.0, -2.0, -50.0, -50.0], [-1.0, -1.0, -1.0, -1.0]])
    batch = {kfg.G_SENTS_IDS: words, kfg.G_LOGP: log_probs, kfg.REWARDS: [0.5, -1.0]}
    (value,) = RewardCriterion(eos_id=0)(batch).values()
    assert value.item() == pytest.approx((0.5 * 3 - 4) / 6)


def test_building_losses():
    cfg = get_cfg()
    with pytest.raises(UserError, match=r"LOSSES\.NAMES is empty"):
        build_losses(cfg)
    cfg.LOSSES.NAMES = ["CrossEntropy", "LabelSmoothing"]
    first, second = build_losses(cfg)
    assert isinstance(first, CrossEntropy) and second.label_smoothing == 0.1
    assert [type(loss).__name__ for loss in build_rl_losses(cfg)] == ["RewardCriterion"]
    add_loss_config(cfg, cfg)
    cfg.LOSSES.NAMES = ["CrosEntropy"]
    with pytest.raises(UserError, match=r"did you mean 'CrossEntropy'"):
        build_losses(cfg)
    with pytest.raises(UserError, match=r"at most 0\.909"):
        LabelSmoothing(label_smoothing=0.95)(outputs())
    cfg.LOSSES.NAMES, cfg.LOSSES.LABELSMOOTHING = ["LabelSmoothing"], 1.0
    with pytest.raises(UserError, match="below 1"):
        build_losses(cfg)
