"""The states of many texts, kept without their padding and anywhere."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...layers.packing import Packing, pack_or_flatten, worth_packing
from .core import Texts

__all__ = ["TextPool"]


class TextPool:
    """Encoded texts of any number, of which a few are needed at a time.

    Args:
        states: (words of all texts, D), text after text.
        lengths: (T,) int64, words of each.
    """

    def __init__(self, states: Tensor, lengths: Tensor) -> None:
        self.states = states
        self.lengths = lengths
        self.starts = lengths.cumsum(0) - lengths

    @classmethod
    def of(cls, texts: Texts, device: torch.device | str | None = None) -> "TextPool":
        """A pool of a batch of texts.

        Args:
            texts: The batch.
            device: Where the states are kept; None for where they are.
        """
        states = texts.states
        if texts.packing is None:
            states = Packing.of(texts.shown).pack(states)
        lengths = texts.shown.sum(1)
        return (
            cls(states, lengths) if device is None else cls(states.to(device), lengths.to(device))
        )

    @classmethod
    def joined(cls, pools: Sequence["TextPool"]) -> "TextPool":
        """One pool of several, in their order."""
        return cls(
            torch.cat([pool.states for pool in pools]), torch.cat([pool.lengths for pool in pools])
        )

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, index: Tensor, device: torch.device | None = None) -> Texts:
        """The texts of rows ``index`` (n,), brought to ``device``."""
        index = index.to(self.lengths.device)
        lengths, starts = self.lengths[index], self.starts[index]
        columns = torch.arange(int(lengths.max()), device=lengths.device)
        shown = columns < lengths[:, None]
        places = (starts[:, None] + columns).where(shown, starts[:, None])
        states = self.states[places]
        if device is not None:
            shown, states = shown.to(device), states.to(device)
        states = states * shown[..., None]
        packing = worth_packing(shown)
        return Texts(pack_or_flatten(states, packing), shown, packing)
