"""X-linear attention as a switchable stage."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from ..layers.bilinear_pooling import Regions
from ..layers.few_rows import linear
from ..layers.low_rank_bilinear import Apply, LowRankBilinearLayer
from ..layers.packing import pack_or_flatten, unpack_or_keep, worth_packing
from .attention import CrossAttention, Memory
from .build import ATTENTION_REGISTRY


@ATTENTION_REGISTRY.register()
class LowRankBilinearAttention(CrossAttention, LowRankBilinearLayer):
    """X-linear attention (Pan et al. 2020), see :class:`LowRankBilinearLayer`.

    Keys and second values of the regions are computed once per image; at every step only the
    query is projected. A last linear layer leads back to the width of the regions where the inner
    width is another.

    Args:
        query_dim: Width of the query.
        memory_dim: Width of the features.
        embed_dim: Width D of all heads together.
        num_heads: Number of heads; must divide ``embed_dim``.
        mid_dims: Width of a head, widths of the hidden layers, width of a head.
        dropout: Dropout after the hidden layers.
        act: Activation of the projections.
        elu_alpha: Alpha of elu and celu.
        where: Setting that holds the sizes, for messages.
    """

    @configurable
    def __init__(
        self,
        *,
        query_dim: int,
        memory_dim: int,
        embed_dim: int,
        num_heads: int,
        mid_dims: Sequence[int],
        dropout: float,
        act: str = "celu",
        elu_alpha: float = 1.3,
        where: str = "MODEL.BILINEAR_ATTENTION",
    ) -> None:
        LowRankBilinearLayer.__init__(
            self,
            query_dim=query_dim,
            memory_dim=memory_dim,
            embed_dim=embed_dim,
            num_heads=num_heads,
            mid_dims=mid_dims,
            mid_dropout=dropout,
            act=act,
            elu_alpha=elu_alpha,
            where=where,
        )
        self.output = nn.Linear(embed_dim, memory_dim) if embed_dim != memory_dim else None

    @classmethod
    def from_config(
        cls, cfg: CfgNode, query_dim: int, memory_dim: int, embed_dim: int, dropout: float
    ) -> dict[str, Any]:
        node = cfg.MODEL.BILINEAR_ATTENTION
        sizes = super().from_config(cfg, query_dim, memory_dim, embed_dim, node.DROPOUT)
        head = embed_dim // node.NUM_HEADS
        return {
            **sizes,
            "num_heads": node.NUM_HEADS,
            "mid_dims": [head, *node.MID_DIMS, head],
            "act": node.ACT,
            "elu_alpha": node.ELU_ALPHA,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.BILINEAR_ATTENTION; XLANDecoder reads MODEL.BILINEAR instead."""
        cfg.MODEL.BILINEAR_ATTENTION = CfgNode(
            # MID_DIMS are the widths of the hidden layers between joint features and scores.
            {"NUM_HEADS": 8, "MID_DIMS": [64], "DROPOUT": 0.1, "ACT": "celu", "ELU_ALPHA": 1.3}
        )

    def memory_projection(self) -> nn.Module:
        """Nothing: both projections of the memory are parts of the attention itself."""
        return nn.Identity()

    def precompute(self, memory: Tensor, mask: Tensor | None, projected: Tensor) -> Memory:
        """Keys and second values (B, N, D), and which regions are real."""
        visible = None if mask is None else mask == 0
        packing = None if visible is None else worth_packing(visible)
        rows = pack_or_flatten(projected, packing)
        keys, values = self.project_memory(rows.reshape(-1, rows.shape[-1]))
        if packing is None:
            keys, values = (part.unflatten(0, memory.shape[:2]) for part in (keys, values))
        prepared = {
            "keys": unpack_or_keep(keys, packing),
            "values": unpack_or_keep(values, packing),
        }
        return prepared if visible is None else {**prepared, "visible": visible}

    def forward(
        self, query: Tensor, memory: Memory, need_weights: bool = False, apply: Apply = linear
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`CrossAttention.forward`; ``apply`` computes the projections of the query."""
        regions = Regions(memory["keys"], memory["values"], memory.get("visible"))
        context, weights = self.bilinear(query, regions, need_weights, apply)
        return context if self.output is None else self.output(context), weights
