"""Memory-augmented attention as a switchable stage."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from .attention import Memory
from .build import ATTENTION_REGISTRY
from .multihead import MultiHeadQueryAttention


@ATTENTION_REGISTRY.register()
class MemoryAugmentedQueryAttention(MultiHeadQueryAttention):
    """Multi-head attention to the regions and to learned memory (Cornia et al. 2020, eq. 3 and 4).

    Keys are ``[W_k f; sqrt(d) m_k]`` and values ``[W_v f; sqrt(m) m_v]`` for heads of width d and
    m learned rows, which are never hidden and hold what no picture shows. The weights returned are
    those of the regions; what is missing to 1 went to the memory.

    Args:
        query_dim: Width of the query.
        memory_dim: Width of the features.
        embed_dim: Width of all heads together.
        num_heads: Number of heads; ``embed_dim`` must be a multiple.
        dropout: Dropout on the weights.
        num_memory: Rows m of memory.
    """

    @configurable
    def __init__(
        self,
        *,
        query_dim: int,
        memory_dim: int,
        embed_dim: int,
        num_heads: int = 8,
        dropout: float = 0.1,
        num_memory: int = 40,
    ) -> None:
        super().__init__(
            query_dim=query_dim,
            memory_dim=memory_dim,
            embed_dim=embed_dim,
            num_heads=num_heads,
            dropout=dropout,
        )
        head = embed_dim // num_heads
        shape = (1, num_heads, num_memory, head)
        self.m_k = nn.Parameter(torch.randn(shape) / head)
        self.m_v = nn.Parameter(torch.randn(shape) / max(num_memory, 1))

    @classmethod
    def from_config(
        cls, cfg: CfgNode, query_dim: int, memory_dim: int, embed_dim: int, dropout: float
    ) -> dict[str, Any]:
        inherited = super().from_config(cfg, query_dim, memory_dim, embed_dim, dropout)
        return {**inherited, "num_memory": cfg.MODEL.MULTIHEAD_ATTENTION.NUM_MEMORY}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.MULTIHEAD_ATTENTION."""
        super().add_config(cfg)
        cfg.MODEL.MULTIHEAD_ATTENTION.NUM_MEMORY = 40  # learned rows beside the regions

    def precompute(self, memory: Tensor, mask: Tensor | None, projected: Tensor) -> Memory:
        """Keys and values per head, (B, heads, N + m, d)."""
        prepared = super().precompute(memory, mask, projected)
        _, _, rows, head = self.m_k.shape
        learned = {"keys": self.m_k * head**0.5, "values": self.m_v * rows**0.5}
        for name, value in learned.items():
            regions = prepared[name]
            value = value.to(regions.dtype).expand(regions.shape[0], -1, -1, -1)
            prepared[name] = torch.cat([regions, value], dim=2)
        if mask is not None:
            prepared["mask"] = F.pad(prepared["mask"], (0, rows))
        return prepared

    def forward(
        self, query: Tensor, memory: Memory, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`CrossAttention.forward`."""
        context, weights = super().forward(query, memory, need_weights)
        return context, None if weights is None else weights[:, : -self.m_k.shape[2] or None]
