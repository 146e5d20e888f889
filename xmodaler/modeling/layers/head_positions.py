"""Which positions of a padded batch the heads of a model read."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .packing import Packing, unpack_or_keep


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

    def packings(self, words: Tensor, regions: Tensor) -> tuple[Packing, Packing]:
        """The positions among words (R, T, D) and among regions (R, N, D)."""
        return _packing(self.words, words), _packing(self.regions, regions)


def _positions(chosen: Tensor | None) -> Tensor | None:
    return None if chosen is None else chosen.flatten().nonzero().squeeze(1)


def _packing(positions: Tensor | None, padded: Tensor) -> Packing:
    if positions is None:
        positions = torch.empty(0, dtype=torch.int64, device=padded.device)
    return Packing(positions, *padded.shape[:2])


def states_at(
    layer: nn.Module, x: Tensor, mask: Tensor, packing: Packing | None, asking: Packing
) -> Tensor:
    """What a BertLayer makes of some positions, which still attend to all.

    Args:
        layer: The layer.
        x: (R, T, D), or (count, D) with ``packing``.
        mask: Additive (R, 1, 1, T).
        packing: Which positions are real.
        asking: The k positions.

    Returns:
        (k, D).
    """
    chosen = asking.pack(unpack_or_keep(x, packing))
    return layer(chosen, mask, x, packing, asking)[0]
