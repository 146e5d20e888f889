"""What all decoders share."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, kfg


class Decoder(nn.Module, ABC):
    """Base of the decoders.

    ``preprocess`` runs once per batch of images, ``forward`` at every step (recurrent decoders)
    or once for all positions (Transformers). What ``preprocess`` returns under a key of
    :attr:`row_keys` is the state of each hypothesis; the rest belongs to the image.
    """

    folds_queries = False
    """Whether per-image tensors may have fewer rows than the text. Where False, the model repeats
    them for every query before this decoder sees them."""

    row_keys = (kfg.G_HIDDEN_STATES, kfg.G_CELL_STATES, kfg.HISTORY_STATES)
    """Keys of the state that beam search reorders."""

    num_layers = 1
    hidden_size = 0

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def preprocess(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """What is computed once per image; nothing by default."""
        return {}

    def init_states(self, batch_size: int) -> dict[str, list[Tensor]]:
        """Zero hidden and cell states, ``num_layers`` tensors (batch_size, hidden_size) each."""
        like = next(self.parameters())

        def zeros() -> list[Tensor]:
            shape = (batch_size, self.hidden_size)
            return [
                torch.zeros(shape, dtype=like.dtype, device=like.device)
                for _ in range(self.num_layers)
            ]

        return {kfg.G_HIDDEN_STATES: zeros(), kfg.G_CELL_STATES: zeros()}

    @abstractmethod
    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """G_HIDDEN_STATES and the new state from G_TOKEN_EMBED and the old state."""
