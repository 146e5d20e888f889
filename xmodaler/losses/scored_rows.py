"""The rows of logits that have a target: beside the padded whole, or in its place."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from xmodaler.config import kfg

SCORED_ROWS = "_SCORED_ROWS"
"""Key of the outputs under which a model may hand its :class:`ScoredRows` to losses."""


U_SELECTED = "_U_SELECTED"
G_SELECTED = "_G_SELECTED"
V_SELECTED = "_V_SELECTED"
R_SELECTED = "_R_SELECTED"
"""Keys under which a model in training hands :class:`SelectedRows` to losses, in the place of
U_LOGITS, G_LOGITS, V_LOGITS (classes of regions) and V_REGRESS (their features), which are then
absent."""


@dataclass(frozen=True)
class SelectedRows:
    """Logits of the positions that have a target, computed for these alone.

    Attributes:
        logits: (k, V) words, (k, K) classes of regions, or (k, F) regressed features.
        targets: (k,) int64 words, none negative; (k, K) or (k, F) for regions.
        positions: (k,) int64, row * T + column of each in a tensor of ``shape``.
        shape: (R, T) rows and positions of the whole that they were taken from.
    """

    logits: Tensor
    targets: Tensor
    positions: Tensor
    shape: tuple[int, int]

    @classmethod
    def of(cls, logits: Tensor, targets: Tensor, positions: Tensor) -> "SelectedRows":
        """The rows of some positions.

        Args:
            logits: (k, ...), of those positions.
            targets: (R, T) or (R, T, ...), of all.
            positions: (k,) int64.
        """
        chosen = targets.flatten(0, 1).index_select(0, positions)
        return cls(logits, chosen, positions, tuple(targets.shape[:2]))


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
