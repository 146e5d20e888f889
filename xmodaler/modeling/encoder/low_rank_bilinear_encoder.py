"""The encoder of X-LAN."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.bilinear_pooling import Regions
from ..layers.create_act import build_act_layer
from ..layers.deferred import DeferredWeight
from ..layers.low_rank_bilinear import BilinearBlock, LowRankBilinearLayer
from ..stage_keys import ATT_PACKING
from .build import ENCODER_REGISTRY


@ENCODER_REGISTRY.register()
class LowRankBilinearEncoder(nn.Module):
    """Stacked X-linear attention blocks over regions (Pan et al. 2020, section 3.2).

    With the mean region ``g_0`` and every block ``i``::

        g_i = drop(XLinear_i(query=g_{i-1}, regions=f))
        f = LayerNorm(drop(act(W_i [g_i; f] + b_i)) + f)

    and at last ``g = LayerNorm(W [g_0; ...; g_n] + b)``. An image without regions has ``g_0 = 0``.

    Args:
        dim: Width D of the regions.
        num_heads: Heads of every block.
        num_layers: Number n of blocks.
        mid_dims: As in :class:`LowRankBilinearLayer`.
        mid_dropout: Dropout inside the attention.
        dropout: Dropout of g_i.
        embed_dropout: Dropout of the update of the regions.
        act: Activation of the projections of the attention.
        embed_act: Activation of the update of the regions.
        elu_alpha: Alpha of elu and celu.
        feature_dim: Width of the embedded features that arrive; must be D.
    """

    accepts_packing = True

    @configurable
    def __init__(
        self,
        *,
        dim: int,
        num_heads: int,
        num_layers: int,
        mid_dims: Sequence[int],
        mid_dropout: float,
        dropout: float,
        embed_dropout: float,
        act: str = "celu",
        embed_act: str = "relu",
        elu_alpha: float = 1.3,
        feature_dim: int | None = None,
    ) -> None:
        super().__init__()
        if feature_dim is not None and feature_dim != dim:
            raise UserError(
                f"MODEL.BILINEAR.DIM is {dim} but MODEL.VISUAL_EMBED.OUT_DIM is {feature_dim}; "
                "LowRankBilinearEncoder adds regions to their updates and needs the same width"
            )
        self.dim = dim

        def attention() -> LowRankBilinearLayer:
            return LowRankBilinearLayer(
                query_dim=dim,
                memory_dim=dim,
                embed_dim=dim,
                num_heads=num_heads,
                mid_dims=mid_dims,
                mid_dropout=mid_dropout,
                act=act,
                elu_alpha=elu_alpha,
                where="MODEL.BILINEAR.ENCODE",
            )

        def update() -> nn.Sequential:
            layers = [nn.Linear(2 * dim, dim), build_act_layer(embed_act, elu_alpha)]
            kept = [layer for layer in layers if layer is not None]
            return nn.Sequential(*kept, nn.Dropout(embed_dropout))

        blocks = range(num_layers)
        self.layers = nn.ModuleList(BilinearBlock(attention()) for _ in blocks)
        self.bifeat_emb = nn.ModuleList(update() for _ in blocks)
        self.layer_norms = nn.ModuleList(nn.LayerNorm(dim) for _ in blocks)
        self.dropout = nn.Dropout(dropout)
        self.proj = nn.Linear(dim * (num_layers + 1), dim)
        self.layer_norm = nn.LayerNorm(dim)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.BILINEAR
        return {
            "dim": node.DIM,
            "num_heads": node.HEAD,
            "num_layers": node.ENCODE.LAYERS,
            "mid_dims": node.ENCODE.ATT_MID_DIM,
            "mid_dropout": node.ENCODE.ATT_MID_DROPOUT,
            "dropout": node.ENCODE.DROPOUT,
            "embed_dropout": node.ENCODE.BIFEAT_EMB_DROPOUT,
            "act": node.ACT,
            "embed_act": node.BIFEAT_EMB_ACT,
            "elu_alpha": node.ELU_ALPHA,
            "feature_dim": cfg.MODEL.VISUAL_EMBED.OUT_DIM,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.BILINEAR."""
        add_bilinear_config(cfg)

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """Mode 'v': ATT_FEATS (B, N, D) and GLOBAL_FEATS (B, D) from ATT_FEATS and ATT_MASKS."""
        if mode is not None and "v" not in mode:
            return {}
        feats, visible = batched_inputs[kfg.ATT_FEATS], batched_inputs[kfg.ATT_MASKS]
        packing = batched_inputs.get(ATT_PACKING)
        real = visible.to(feats.dtype).unsqueeze(-1)
        g = (feats * real).sum(1) / real.sum(1).clamp(min=1)
        rows = feats.flatten(0, 1) if packing is None else packing.pack(feats)
        summaries = [g]
        for layer, update, norm in zip(self.layers, self.bifeat_emb, self.layer_norms, strict=True):
            pair = layer.encoder_attn.project_memory(rows)
            if packing is None:
                pair = (part.unflatten(0, visible.shape) for part in pair)
            regions = Regions(*pair, visible, packing)
            g = self.dropout(layer.encoder_attn.bilinear(g, regions)[0])
            weight = DeferredWeight(update[0].weight, (self.dim, self.dim))
            of_image = weight.linear(g, update[0].bias, block=0)
            if packing is None:
                of_image = of_image.repeat_interleave(feats.shape[1], dim=0)
            else:
                of_image = of_image.index_select(0, packing.index // packing.length)
            new = weight.linear(rows, of_image, block=1)
            for step in update[1:]:
                new = step(new)
            rows = norm(new + rows)
            summaries.append(g)
        g = self.layer_norm(self.proj(torch.cat(summaries, dim=-1)))
        feats = rows.unflatten(0, visible.shape) if packing is None else packing.unpack(rows)
        return {kfg.ATT_FEATS: feats, kfg.GLOBAL_FEATS: g}


def add_bilinear_config(cfg: CfgNode) -> None:
    """Create MODEL.BILINEAR, which encoder and decoder of X-LAN share."""
    attention = {"ATT_MID_DIM": [128, 64, 128], "ATT_MID_DROPOUT": 0.1, "DROPOUT": 0.5}
    cfg.MODEL.BILINEAR = CfgNode(
        {
            "DIM": 1024,
            "HEAD": 8,
            "BIFEAT_EMB_ACT": "relu",
            "ACT": "celu",
            "ELU_ALPHA": 1.3,
            "ENCODE": CfgNode({**attention, "BIFEAT_EMB_DROPOUT": 0.3, "LAYERS": 4}),
            "DECODE": CfgNode({**attention, "LAYERS": 1}),
        }
    )
