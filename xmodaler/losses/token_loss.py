"""Losses on word logits: mean over all target words of all processes."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.utils import comm

from .scored_rows import G_SELECTED, U_SELECTED, scored_rows

HEADS = (
    ("G", kfg.G_LOGITS, kfg.G_TARGET_IDS, G_SELECTED),
    ("U", kfg.U_LOGITS, kfg.U_TARGET_IDS, U_SELECTED),
)
"""Generation and understanding: a letter for the loss name, the keys of logits, of targets and of
the rows of selected positions."""

IGNORED = -1


def present_heads(outputs: dict[str, Any]) -> list[tuple[str, Tensor, Tensor]]:
    """Letter, logits and targets of every head that has both.

    Where a model has computed the logits of some positions alone, these rows and their targets.
    Scores of single choices (B * C, 1) with one target per question become logits (B, C).
    """
    rows = scored_rows(outputs)
    present = []
    for letter, logits, targets, selected in HEADS:
        if selected in outputs:
            present.append((letter, outputs[selected].logits, outputs[selected].targets))
        elif logits in outputs and targets in outputs:
            pair = (_by_question(outputs[logits], outputs[targets]), outputs[targets])
            if letter == "G" and rows is not None:
                pair = (rows.logits, rows.targets)
            present.append((letter, *pair))
    return present


def _by_question(logits: Tensor, targets: Tensor) -> Tensor:
    """The logits, those of the choices of a question side by side."""
    questions = targets.numel()
    single = logits.ndim == 2 and logits.shape[1] == 1 and logits.shape[0] > questions > 0
    if not single or logits.shape[0] % questions:
        return logits
    return logits.reshape(questions, -1)


def token_cross_entropy(
    logits: Tensor,
    targets: Tensor,
    uniform: float = 0.0,
    offset: float = 0.0,
    excluded: int = -1,
) -> Tensor:
    """``offset - sum_v q_v log p_v``, mean over targets, ``q = (1 - u) onehot + u / V``.

    The mean is over the words of all processes: each divides its own sum by the mean count, so
    that averaging gradients over processes gives the gradient of the global mean.

    Args:
        logits: (..., V).
        targets: (...) int64, negative where there is nothing to predict; such rows are dropped.
        uniform: Weight u of the uniform distribution.
        offset: Added for every target.
        excluded: A word whose share ``u / V`` goes to the target; -1 for none.

    Returns:
        A scalar in float32; 0 when there is no target.
    """
    rows, ids = logits.reshape(-1, logits.shape[-1]), targets.reshape(-1)
    real = ids >= 0
    number = real.sum().to(torch.float32)
    count = comm.mean_over_ranks(number).clamp(min=1e-6)
    if rows.device.type == "cpu" and not real.all():
        # Elsewhere the host would have to wait for the number of real rows.
        kept = real.nonzero().squeeze(1)
        rows, ids = rows.index_select(0, kept), ids.index_select(0, kept)
    ids = ids.clamp(min=IGNORED)
    total = F.cross_entropy(
        rows.float(), ids, ignore_index=IGNORED, reduction="sum", label_smoothing=uniform
    )
    if uniform and excluded >= 0:
        # log p of the target for that of the word: the difference of their logits.
        moved = rows[:, excluded] - rows.gather(1, ids.clamp(min=0)[:, None]).squeeze(1)
        total = total + uniform / rows.shape[1] * moved.float().where(ids >= 0, 0.0).sum()
    return (total + offset * number) / count
