"""What recurrent decoders expect of an attention."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode

Memory = dict[str, Tensor]


class CrossAttention(nn.Module, ABC):
    """Attention from G queries per image to the regions of the image.

    A decoder asks once per image for ``precompute`` and then, at every step, for ``forward``.
    What projects the memory is a module of its own, made by :meth:`memory_projection` and kept by
    the decoder, because released weights name it there (``decoder.p_att_feats``).
    """

    takes_vector_query = True
    """Whether single vectors may ask; where False no recurrent decoder can use it."""

    takes_levels = False
    """Whether the memory may be several encodings of the same regions, (B, L, N, memory_dim)."""

    @classmethod
    def from_config(
        cls, cfg: CfgNode, query_dim: int, memory_dim: int, embed_dim: int, dropout: float
    ) -> dict[str, Any]:
        """Constructor keywords from the sizes of the decoder."""
        return {
            "query_dim": query_dim,
            "memory_dim": memory_dim,
            "embed_dim": embed_dim,
            "dropout": dropout,
        }

    @abstractmethod
    def memory_projection(self) -> nn.Module:
        """A new module (..., memory_dim) -> (..., width of the keys)."""

    def precompute(self, memory: Tensor, mask: Tensor | None, projected: Tensor) -> Memory:
        """What every step needs, made once per image.

        Args:
            memory: (B, N, memory_dim).
            mask: (B, N) additive, or None.
            projected: What the memory projection made of ``memory``, (B, N, ...).

        Returns:
            Tensors with first dimension B.
        """
        prepared = {"memory": without_hidden(memory, mask), "keys": projected}
        return prepared if mask is None else {**prepared, "mask": mask}

    @abstractmethod
    def forward(
        self, query: Tensor, memory: Memory, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            query: (B * G, query_dim), the G queries of an image adjacent.
            memory: What :meth:`precompute` returned.
            need_weights: The weights are wanted; without it they may be None.

        Returns:
            The context (B * G, memory_dim) and the weights (B * G, N) or None.
        """


def without_hidden(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values (B, N, ...) with zeros where an additive mask (B, N) hides them.

    Weights there are 0 anyway, unless everything is hidden: then they are equal, and what they
    weigh must not depend on how far the batch is padded.
    """
    return values if mask is None else values.masked_fill((mask != 0).unsqueeze(-1), 0.0)
