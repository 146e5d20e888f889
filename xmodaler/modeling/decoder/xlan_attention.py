"""The attention blocks of X-LAN's decoder."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode

from ..attention import LowRankBilinearAttention, build_attention
from ..layers.few_rows import linear
from ..layers.low_rank_bilinear import Apply, BilinearBlock


class XLANAttention(nn.Module):
    """``u_0 = h``, ``u_i = drop(att_i(u_{i-1}, f))``, ``a = LayerNorm(W [u_0; ...; u_n] + b)``.

    Pan et al. 2020, section 3.3, where every ``att_i`` is X-linear.

    Args:
        dim: Width D of h, of the regions f and of a.
        attentions: ``att_1`` to ``att_n``.
        dropout: Dropout of the attended vectors.
    """

    def __init__(self, *, dim: int, attentions: Sequence[nn.Module], dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(BilinearBlock(attention) for attention in attentions)
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(dim * (len(attentions) + 1), dim)
        self.layer_norm = nn.LayerNorm(dim)

    def step_layers(self) -> list[nn.Linear]:
        """The linear layers that every step runs through, but for attentions of other kinds."""
        blocks = [layer.encoder_attn for layer in self.layers]
        own = [block for block in blocks if isinstance(block, LowRankBilinearAttention)]
        return [*(each for block in own for each in block.query_layers()), self.proj]

    def forward(
        self,
        hidden: Tensor,
        memories: Sequence[dict[str, Tensor]],
        need_weights: bool = False,
        apply: Apply = linear,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend.

        Args:
            hidden: (B * G, D).
            memories: What each attention prepared of the regions.
            need_weights: The weights are wanted.
            apply: How linear layers are computed.

        Returns:
            a (B * G, D), and the weights (B * G, N) of the last block, or None.
        """
        queries, weights = [hidden], None
        for layer, memory in zip(self.layers, memories, strict=True):
            attend = layer.encoder_attn
            if isinstance(attend, LowRankBilinearAttention):
                attend = partial(attend, apply=apply)
            attended, weights = attend(queries[-1], memory, need_weights)
            queries.append(self.dropout(attended))
        return self.layer_norm(apply(self.proj, torch.cat(queries, dim=-1))), weights


def attentions_from_config(cfg: CfgNode) -> list[nn.Module]:
    """One attention per block: X-linear with the sizes of ``MODEL.BILINEAR``, or another one."""
    node = cfg.MODEL.BILINEAR
    sizes: dict[str, Any] = {"query_dim": node.DIM, "memory_dim": node.DIM, "embed_dim": node.DIM}
    dropout = node.DECODE.ATT_MID_DROPOUT
    blocks = range(node.DECODE.LAYERS)
    if LowRankBilinearAttention.__name__ != cfg.MODEL.ATTENTION:
        return [build_attention(cfg, **sizes, dropout=dropout) for _ in blocks]
    return [
        LowRankBilinearAttention(
            **sizes,
            num_heads=node.HEAD,
            mid_dims=node.DECODE.ATT_MID_DIM,
            dropout=dropout,
            act=node.ACT,
            elu_alpha=node.ELU_ALPHA,
            where="MODEL.BILINEAR.DECODE",
        )
        for _ in blocks
    ]
