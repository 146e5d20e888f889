"""Additive attention as a switchable stage."""

from torch import Tensor, nn

from xmodaler.config import configurable

from ..layers.base_attention import BaseAttention
from .attention import CrossAttention, Memory
from .build import ATTENTION_REGISTRY


@ATTENTION_REGISTRY.register()
class AdditiveAttention(CrossAttention, BaseAttention):
    """Soft attention by a one-layer network (Bahdanau et al. 2015; Xu et al. 2015).

    ``score_n = w_alpha . dropout(tanh(W_h h + W_p f_n + b_p)) + mask_n``; the projection
    ``W_p f_n + b_p`` of the features is made once per image.

    Args:
        query_dim: Width of the query.
        memory_dim: Width of the features.
        embed_dim: Width in which the two are compared.
        dropout: Dropout after the tanh.
    """

    @configurable
    def __init__(
        self, *, query_dim: int, memory_dim: int, embed_dim: int, dropout: float = 0.0
    ) -> None:
        BaseAttention.__init__(
            self,
            hidden_size=query_dim,
            att_embed_size=embed_dim,
            att_embed_dropout=dropout,
        )
        self.memory_dim = memory_dim

    def memory_projection(self) -> nn.Module:
        """(..., memory_dim) -> (..., embed_dim)."""
        return nn.Linear(self.memory_dim, self.w_h.out_features)

    def forward(
        self, query: Tensor, memory: Memory, need_weights: bool = False
    ) -> tuple[Tensor, Tensor]:
        """As :meth:`CrossAttention.forward`."""
        return self.attend(query, memory["memory"], memory["keys"], memory.get("mask"))
