"""Multi-head dot-product attention as a switchable stage."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from ..layers.dot_product import attend, check_heads, split_heads
from ..layers.grouping import queries_per_image
from .attention import CrossAttention, Memory, without_hidden
from .build import ATTENTION_REGISTRY


@ATTENTION_REGISTRY.register()
class MultiHeadQueryAttention(CrossAttention):
    """``W_o [head_1; ...; head_h]``, each head a scaled dot-product (Vaswani et al. 2017).

    Keys and values of the regions are projected once per image; only the query is projected at
    every step. The weights returned are the mean over the heads.

    Args:
        query_dim: Width of the query.
        memory_dim: Width of the features.
        embed_dim: Width of all heads together.
        num_heads: Number of heads; ``embed_dim`` must be a multiple.
        dropout: Dropout on the weights.
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
    ) -> None:
        super().__init__()
        check_heads(embed_dim, num_heads, "MODEL.MULTIHEAD_ATTENTION")
        self.memory_dim, self.embed_dim = memory_dim, embed_dim
        self.num_heads, self.dropout = num_heads, dropout
        self.query = nn.Linear(query_dim, embed_dim)
        self.output = nn.Linear(embed_dim, memory_dim)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, query_dim: int, memory_dim: int, embed_dim: int, dropout: float
    ) -> dict[str, Any]:
        node = cfg.MODEL.MULTIHEAD_ATTENTION
        sizes = super().from_config(cfg, query_dim, memory_dim, embed_dim, dropout)
        return {**sizes, "num_heads": node.NUM_HEADS, "dropout": node.DROPOUT}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.MULTIHEAD_ATTENTION."""
        cfg.MODEL.MULTIHEAD_ATTENTION = CfgNode({"NUM_HEADS": 8, "DROPOUT": 0.1})

    def memory_projection(self) -> nn.Module:
        """(..., memory_dim) -> (..., 2 * embed_dim): keys, then values."""
        return nn.Linear(self.memory_dim, 2 * self.embed_dim)

    def precompute(self, memory: Tensor, mask: Tensor | None, projected: Tensor) -> Memory:
        """Keys and values per head, (B, heads, N, d)."""
        keys, values = projected.chunk(2, dim=-1)
        keys = split_heads(keys, self.num_heads)
        values = split_heads(without_hidden(values, mask), self.num_heads)
        prepared = {"keys": keys, "values": values}
        return prepared if mask is None else {**prepared, "mask": mask[:, None, None]}

    def forward(
        self, query: Tensor, memory: Memory, need_weights: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`CrossAttention.forward`."""
        context, weights = attend(
            split_heads(self.folded_query(query, memory), self.num_heads),
            memory["keys"],
            memory["values"],
            memory.get("mask"),
            self.dropout if self.training else 0.0,
            need_weights,
        )
        mean = None if weights is None else weights.mean(dim=1).flatten(0, 1)
        return self.output(context).flatten(0, 1), mean

    def folded_query(self, query: Tensor, memory: Memory) -> Tensor:
        """(B * G, query_dim) -> (B, G, embed_dim), projected."""
        images = memory["keys"].shape[0]
        queries_per_image(query.shape[0], images)
        return self.query(query).unflatten(0, (images, -1))
