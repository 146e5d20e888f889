"""Meshed attention as a switchable stage."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable
from xmodaler.utils.errors import UserError

from ..layers.dot_product import attend, split_heads
from .attention import Memory
from .build import ATTENTION_REGISTRY
from .multihead import MultiHeadQueryAttention


@ATTENTION_REGISTRY.register()
class MeshedQueryAttention(MultiHeadQueryAttention):
    """Multi-head attention to every level of an encoder, gated (Cornia et al. 2020, section 3.2).

    With ``e_i`` what multi-head attention, the same for all levels, finds in level i::

        z = sum_i sigmoid(W_i [q; e_i] + b_i) * e_i / sqrt(L)

    The levels are the layers that an encoder hands on, (B, L, N, D). Features (B, N, D) are one
    level. The weights returned are the mean over levels and heads.

    Args:
        query_dim: Width of the query.
        memory_dim: Width of the features.
        embed_dim: Width of all heads together.
        num_heads: Number of heads; ``embed_dim`` must be a multiple.
        dropout: Dropout on the weights.
        num_levels: Number L of levels.
    """

    takes_levels = True

    @configurable
    def __init__(
        self,
        *,
        query_dim: int,
        memory_dim: int,
        embed_dim: int,
        num_heads: int = 8,
        dropout: float = 0.1,
        num_levels: int = 1,
    ) -> None:
        super().__init__(
            query_dim=query_dim,
            memory_dim=memory_dim,
            embed_dim=embed_dim,
            num_heads=num_heads,
            dropout=dropout,
        )
        self.gates = nn.ModuleList(
            nn.Linear(query_dim + memory_dim, memory_dim) for _ in range(num_levels)
        )

    @classmethod
    def from_config(
        cls, cfg: CfgNode, query_dim: int, memory_dim: int, embed_dim: int, dropout: float
    ) -> dict[str, Any]:
        inherited = super().from_config(cfg, query_dim, memory_dim, embed_dim, dropout)
        return {**inherited, "num_levels": cfg.MODEL.MULTIHEAD_ATTENTION.NUM_LEVELS}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.MULTIHEAD_ATTENTION."""
        super().add_config(cfg)
        # Layers that the encoder hands on: 1, or those of an encoder that stacks all of its own.
        cfg.MODEL.MULTIHEAD_ATTENTION.NUM_LEVELS = 1

    def precompute(self, memory: Tensor, mask: Tensor | None, projected: Tensor) -> Memory:
        """Keys and values per level and head, (B, L * heads, N, d)."""
        levels = memory.shape[1] if memory.dim() == 4 else 1
        if levels != len(self.gates):
            raise UserError(
                f"MODEL.MULTIHEAD_ATTENTION.NUM_LEVELS is {len(self.gates)} but the encoder hands "
                f"on {levels} level(s) of features; make the two agree"
            )
        # Levels become images of their own: (B * L, N, ...).
        flat = projected.reshape(-1, *projected.shape[-2:])
        each = None if mask is None else mask.repeat_interleave(levels, dim=0)
        prepared = super().precompute(flat, each, flat)
        prepared.pop("mask", None)
        prepared = {
            name: value.unflatten(0, (-1, levels)).flatten(1, 2) for name, value in prepared.items()
        }
        return prepared if mask is None else {**prepared, "mask": mask[:, None, None]}

    def forward(
        self, query: Tensor, memory: Memory, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`CrossAttention.forward`."""
        levels = len(self.gates)
        folded = split_heads(self.folded_query(query, memory), self.num_heads)
        context, weights = attend(
            folded.repeat(1, levels, 1, 1),
            memory["keys"],
            memory["values"],
            memory.get("mask"),
            self.dropout if self.training else 0.0,
            need_weights,
        )
        found = self.output(context.flatten(0, 1).unflatten(-1, (levels, -1)))
        mixed = torch.zeros_like(found[:, 0])
        for level, gate in zip(found.unbind(1), self.gates, strict=True):
            mixed = mixed + torch.sigmoid(gate(torch.cat([query, level], dim=-1))) * level
        mean = None if weights is None else weights.mean(dim=1).flatten(0, 1)
        return mixed / levels**0.5, mean
