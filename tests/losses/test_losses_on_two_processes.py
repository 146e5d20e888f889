"""Losses of two gloo processes against those of one with the joint batch."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from xmodaler.config import kfg
from xmodaler.losses import BatchTriplet, BCEWithLogits, PretrainLosses, Triplet

ROWS, LENGTH, WORDS, REGIONS, CLASSES = 4, 5, 7, 3, 6


def joint_batch(case):
    """A batch of which each process takes half the rows; targets are unevenly spread."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    if case == "answers":
        targets = torch.rand(ROWS, CLASSES, generator=generator)
        return {kfg.U_LOGITS: normal(ROWS, CLASSES), kfg.U_TARGET_IDS: targets}
    if case == "pairs":
        scores = normal(2 * ROWS, 1)
        # A violation too many in the first half, hardly any in the second.
        scores[ROWS::2] += 2
        return {kfg.U_LOGITS: scores, kfg.SAMPLE_PER_SAMPLE: 2}
    if case == "similarities":
        return {kfg.OUTPUT: normal(ROWS, ROWS), kfg.IDS: ["a", "b", "c", "d"]}
    words = torch.full((ROWS, LENGTH), -1)
    words[0, :4], words[2, 1] = torch.arange(4), 3
    labels = torch.full((ROWS, REGIONS), -1)
    labels[1, 0] = labels[1, 2] = 1  # none in the second half
    return {
        kfg.U_LOGITS: normal(ROWS, LENGTH, WORDS),
        kfg.U_TARGET_IDS: words,
        kfg.V_LOGITS: normal(ROWS, REGIONS, CLASSES),
        kfg.V_TARGET: normal(ROWS, REGIONS, CLASSES).softmax(-1),
        kfg.V_TARGET_LABELS: labels,
        kfg.ITM_LOGITS: normal(ROWS, 2),
        kfg.ITM_NEG_LABEL: torch.tensor([0, 1, 1, 0]),
    }


LOSSES = {
    "answers": BCEWithLogits(),
    "pairs": Triplet(margin=0.2),
    "pretraining": PretrainLosses(margin=0.2, max_violation=True),
    "similarities": BatchTriplet(margin=0.2, max_violation=True),
}


def half(batch, case, rank):
    """The rows of a process."""

    def own(value):
        if not isinstance(value, (torch.Tensor, list)):
            return value
        rows = slice(rank * len(value) // 2, (rank + 1) * len(value) // 2)
        own_rows = value[rows]
        square = case == "similarities" and isinstance(value, torch.Tensor)
        return own_rows[:, rows] if square else own_rows

    return {key: own(value) for key, value in batch.items()}


def _worker(rank, folder, case):
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        losses = LOSSES[case](half(joint_batch(case), case, rank))
        torch.save({name: value.detach() for name, value in losses.items()}, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def of_both(tmp_path, case):
    mp.spawn(_worker, args=(str(tmp_path), case), nprocs=2)
    return [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", ["answers", "pairs", "pretraining"])
def test_the_mean_over_processes_is_the_loss_of_the_joint_batch(tmp_path, case):
    left, right = of_both(tmp_path, case)
    expected = LOSSES[case](joint_batch(case))
    # Also a head that has nothing to predict on one of them.
    assert set(left) == set(right) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close((left[name] + right[name]) / 2, value, msg=name)


@pytest.mark.slow
def test_mismatches_are_not_exchanged_between_processes(tmp_path):
    """Each process ranks its own rows: less mismatches, and a sum over half the batch."""
    found = of_both(tmp_path, "similarities")
    joint = joint_batch("similarities")
    for rank, losses in enumerate(found):
        own = LOSSES["similarities"](half(joint, "similarities", rank))
        assert losses == own
    total = sum(losses["BatchTriplet Loss"] for losses in found)
    assert total < LOSSES["similarities"](joint)["BatchTriplet Loss"]
