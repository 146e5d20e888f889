"""The rows of word logits that have a target, kept beside the padded whole."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from xmodaler.config import kfg

SCORED_ROWS = "_SCORED_ROWS"
"""Key of the outputs under which a model may hand its :class:`ScoredRows` to losses."""


@dataclass(frozen=True)
class ScoredRows:
    """What a loss would otherwise gather from G_LOGITS, a tensor several times as large.

    Attributes:
        whole: G_LOGITS (R, L, V), which holds the same numbers among zeros.
        whole_targets: G_TARGET_IDS (R, L).
        logits: (k, V).
        targets: (k,) int64, none negative.
    """

    whole: Tensor
    whole_targets: Tensor
    logits: Tensor
    targets: Tensor


def scored_rows(outputs: dict[str, Any]) -> ScoredRows | None:
    """The scored rows of outputs whose logits and targets are still those they were made of."""
    rows = outputs.get(SCORED_ROWS)
    if rows is None or outputs.get(kfg.G_LOGITS) is not rows.whole:
        return None
    return rows if outputs.get(kfg.G_TARGET_IDS) is rows.whole_targets else None
