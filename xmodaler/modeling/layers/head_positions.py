"""Which positions of a padded batch the heads of a model read."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HeadPositions:
    """The states that heads read; an encoder's last layer need not compute any others.

    Positions are flat, ``row * length + column``; None and an empty tensor both stand for none.

    Attributes:
        words: (k,) int64, of the texts (R, T).
        regions: (m,) int64, of the regions (R, N).
    """

    words: Tensor | None = None
    regions: Tensor | None = None

    @classmethod
    def first_words(cls, tokens: Tensor) -> "HeadPositions":
        """The first word of every text (R, T)."""
        rows, length = tokens.shape[:2]
        return cls(words=torch.arange(rows, device=tokens.device) * length)

    @classmethod
    def where(cls, words: Tensor | None = None, regions: Tensor | None = None) -> "HeadPositions":
        """Where bool masks (R, T) and (R, N) are true; an accelerator is waited for once."""
        return cls(words=_positions(words), regions=_positions(regions))

    def in_joint_rows(self, length: int, regions: int) -> Tensor:
        """Positions in rows that hold a text of ``length`` and then ``regions``: words first."""
        width = length + regions
        parts = []
        if self.words is not None:
            parts.append(self.words // length * width + self.words % length)
        if self.regions is not None:
            parts.append(self.regions // regions * width + length + self.regions % regions)
        return torch.cat(parts)

    def of_words(self, states: Tensor) -> Tensor | None:
        """The read rows (k, D) of the states (R, T, D) of texts."""
        return _rows(states, self.words)

    def of_regions(self, states: Tensor) -> Tensor | None:
        """The read rows (m, D) of the states (R, N, D) of regions."""
        return _rows(states, self.regions)


def _positions(chosen: Tensor | None) -> Tensor | None:
    return None if chosen is None else chosen.flatten().nonzero().squeeze(1)


def _rows(states: Tensor, positions: Tensor | None) -> Tensor | None:
    return None if positions is None else states.flatten(0, 1).index_select(0, positions)
