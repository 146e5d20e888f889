"""Losses of pre-training and understanding: selected rows, empty batches, bf16, mistakes."""

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.losses import (
    G_SELECTED,
    R_SELECTED,
    U_SELECTED,
    V_SELECTED,
    BatchTriplet,
    BCEWithLogits,
    CrossEntropy,
    LabelSmoothing,
    PretrainLosses,
    SelectedRows,
    Triplet,
    build_losses,
)
from xmodaler.utils.errors import UserError

IMAGES, LENGTH, REGIONS, WORDS, CLASSES = 4, 7, 5, 11, 6


def outputs(dtype=torch.float32, seed=0):
    """What a model that pre-trains with every head gives."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator).to(dtype).requires_grad_()

    targets = torch.randint(0, WORDS, (IMAGES, LENGTH), generator=generator)
    targets[:, 1::2] = -1
    labels = torch.full((IMAGES, REGIONS), -1)
    labels[1, 2] = labels[3, 0] = labels[3, 4] = 1
    return {
        kfg.IDS: ["a", "b", "a", "c"],
        kfg.OUTPUT: normal(IMAGES, IMAGES),
        kfg.ITM_LOGITS: normal(IMAGES, 2),
        kfg.ITM_NEG_LABEL: torch.tensor([0, 1, 1, 0]),
        kfg.U_LOGITS: normal(IMAGES, LENGTH, WORDS),
        kfg.U_TARGET_IDS: targets,
        kfg.G_LOGITS: normal(IMAGES, LENGTH, WORDS),
        kfg.G_TARGET_IDS: targets.roll(1, dims=1),
        kfg.V_LOGITS: normal(IMAGES, REGIONS + 1, CLASSES),
        kfg.V_REGRESS: normal(IMAGES, REGIONS, CLASSES),
        kfg.V_TARGET: torch.randn(IMAGES, REGIONS, CLASSES, generator=generator).softmax(-1),
        kfg.V_TARGET_LABELS: labels,
    }


def selected(batch):
    """The same with the rows that have a target in the place of all rows."""
    rows = dict(batch)
    for logits, targets, key in (
        (kfg.U_LOGITS, kfg.U_TARGET_IDS, U_SELECTED),
        (kfg.G_LOGITS, kfg.G_TARGET_IDS, G_SELECTED),
    ):
        positions = (batch[targets].flatten() >= 0).nonzero().squeeze(1)
        rows[key] = SelectedRows(
            rows.pop(logits).flatten(0, 1)[positions],
            batch[targets].flatten()[positions],
            positions,
            (IMAGES, LENGTH),
        )
    positions = (batch[kfg.V_TARGET_LABELS].flatten() > 0).nonzero().squeeze(1)
    targets = batch[kfg.V_TARGET].flatten(0, 1)[positions]
    for whole, key in (
        (rows.pop(kfg.V_LOGITS)[:, 1:], V_SELECTED),
        (rows.pop(kfg.V_REGRESS), R_SELECTED),
    ):
        logits = whole.flatten(0, 1)[positions]
        rows[key] = SelectedRows(logits, targets, positions, (IMAGES, REGIONS))
    return rows


def pretrain_losses():
    return PretrainLosses(margin=0.2, max_violation=True)


def test_selected_rows_give_the_losses_of_all_rows():
    batch = outputs()
    whole, rows = pretrain_losses()(batch), pretrain_losses()(selected(batch))
    assert list(whole) == list(rows) and len(whole) == 6
    for name, value in whole.items():
        torch.testing.assert_close(rows[name], value, msg=name)


@pytest.mark.parametrize("loss", [CrossEntropy(), LabelSmoothing(label_smoothing=0.1)])
def test_word_losses_read_selected_rows(loss):
    batch = outputs()
    whole, rows = loss(batch), loss(selected(batch))
    assert set(whole) == set(rows) and len(whole) == 2
    for name, value in whole.items():
        torch.testing.assert_close(rows[name], value, msg=name)


@pytest.mark.parametrize("as_rows", [False, True])
def test_a_head_without_targets_is_left_out(as_rows):
    batch = outputs()
    batch[kfg.V_TARGET_LABELS] = torch.full((IMAGES, REGIONS), -1)
    batch[kfg.U_TARGET_IDS] = torch.full((IMAGES, LENGTH), -1)
    losses = pretrain_losses()(selected(batch) if as_rows else batch)
    assert set(losses) == {
        "BatchTriplet Loss",
        "Image Text Matching",
        "Masked Sentence Generation",
    }


@pytest.mark.parametrize("as_rows", [False, True])
def test_a_batch_without_any_target_gives_a_zero_that_backpropagates(as_rows):
    batch = outputs()
    batch[kfg.V_TARGET_LABELS] = torch.full((IMAGES, REGIONS), -1)
    batch[kfg.U_TARGET_IDS] = batch[kfg.G_TARGET_IDS] = torch.full((IMAGES, LENGTH), -1)
    leaves = [batch[key] for key in (kfg.V_LOGITS, kfg.U_LOGITS, kfg.G_LOGITS, kfg.V_REGRESS)]
    rows = selected(batch) if as_rows else dict(batch)
    for key in (kfg.OUTPUT, kfg.ITM_LOGITS):
        del rows[key]
    total = sum(pretrain_losses()(rows).values())
    total.backward()
    assert total.item() == 0
    assert all(leaf.grad is not None and not leaf.grad.any() for leaf in leaves)


def test_vectors_of_evaluation_are_no_similarities():
    batch = outputs()
    batch[kfg.OUTPUT] = [torch.zeros(IMAGES, 3), torch.zeros(IMAGES, 3)]
    assert "BatchTriplet Loss" not in pretrain_losses()(batch)


def test_the_triplet_of_pretraining_is_a_mean():
    batch = outputs()
    (one,) = BatchTriplet(margin=0.2, max_violation=True)(batch).values()
    torch.testing.assert_close(pretrain_losses()(batch)["BatchTriplet Loss"], one / IMAGES)


@pytest.mark.parametrize("max_violation", [True, False])
def test_batch_triplet_without_a_violation_is_zero(max_violation):
    scores = (torch.eye(3) * 5).requires_grad_()
    loss = BatchTriplet(margin=0.2, max_violation=max_violation)
    (value,) = loss({kfg.OUTPUT: scores, kfg.IDS: ["a", "b", "c"]}).values()
    value.backward()
    assert value.item() == 0 and not scores.grad.any()


def test_batch_triplet_counts_no_pair_of_one_image():
    scores = torch.tensor([[0.0, 9.0], [9.0, 0.0]])
    loss = BatchTriplet(margin=0.2, max_violation=True)
    (same,) = loss({kfg.OUTPUT: scores, kfg.IDS: ["a", "a"]}).values()
    (other,) = loss({kfg.OUTPUT: scores, kfg.IDS: ["a", "b"]}).values()
    assert same.item() == 0 and other.item() == pytest.approx(4 * 9.2)


def test_losses_are_float32_inside():
    exact, coarse = outputs(), outputs(torch.bfloat16)
    for key, value in exact.items():
        if isinstance(value, torch.Tensor) and value.requires_grad:
            exact[key] = coarse[key].detach().float()
    expected, found = pretrain_losses()(exact), pretrain_losses()(coarse)
    for name, value in found.items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected[name], msg=name)
    scores = torch.randn(8, 3, dtype=torch.bfloat16)
    answers = {kfg.U_LOGITS: scores, kfg.U_TARGET_IDS: torch.rand(8, 3)}
    pairs = {kfg.U_LOGITS: scores[:, :1], kfg.SAMPLE_PER_SAMPLE: 4}
    similar = {kfg.OUTPUT: scores[:3], kfg.IDS: ["a", "b", "c"]}
    for loss, batch in (
        (BCEWithLogits(), answers),
        (Triplet(margin=0.2), pairs),
        (BatchTriplet(margin=0.2, max_violation=True), similar),
    ):
        (value,) = loss(batch).values()
        raised = {k: v.float() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
        torch.testing.assert_close(value, *loss(raised).values())


def test_choices_of_a_question_stand_side_by_side():
    scores, labels = torch.randn(12, 1), torch.tensor([[2], [0], [3]])
    (value,) = CrossEntropy()({kfg.U_LOGITS: scores, kfg.U_TARGET_IDS: labels}).values()
    expected = torch.nn.functional.cross_entropy(scores.view(3, 4), labels.flatten())
    torch.testing.assert_close(value, expected)


def test_mistakes_are_explained():
    with pytest.raises(UserError, match="LABELS_NUM"):
        BCEWithLogits()({kfg.U_LOGITS: torch.zeros(2, 3), kfg.U_TARGET_IDS: torch.zeros(2, 4)})
    with pytest.raises(UserError, match="NEGATIVE_SIZE"):
        Triplet(margin=0.2)({kfg.U_LOGITS: torch.zeros(4, 1)})
    with pytest.raises(UserError, match="as many texts as images"):
        BatchTriplet(margin=0.2, max_violation=True)(
            {kfg.OUTPUT: torch.zeros(4, 2), kfg.IDS: ["a", "b"]}
        )


def test_losses_are_built_from_the_config():
    cfg = get_cfg()
    cfg.LOSSES.NAMES = ["PretrainLosses", "BatchTriplet", "Triplet", "BCEWithLogits"]
    cfg.LOSSES.MARGIN, cfg.LOSSES.MAX_VIOLATION = 0.7, False
    first, second, third, _ = build_losses(cfg)
    assert (first.margin, second.margin, third.margin) == (0.7, 0.7, 0.7)
    assert not first.max_violation and not second.max_violation
