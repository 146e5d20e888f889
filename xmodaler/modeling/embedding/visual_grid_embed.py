"""Embedding of grid features with one global vector in front."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from .build import EMBEDDING_REGISTRY
from .visual_embed import features_of, visual_layers


@EMBEDDING_REGISTRY.register()
class VisualGridEmbedding(nn.Module):
    """``dropout(norm(act([W_g g ; W f] + position)))`` with learned positions.

    The global vector becomes one more token in front of the grid, as visible as the first cell.

    Args:
        in_dim: Width of the grid features.
        g_in_dim: Width of the global feature; 0 or less for no global token.
        out_dim: Width of the embedding.
        embeddings_act: Activation.
        embeddings_norm: Norm over the last axis.
        embeddings_dropout: Dropout.
        embeddings_pos: Parameter (1, tokens, out_dim), the global token counted.
    """

    @configurable
    def __init__(
        self,
        *,
        in_dim: int,
        g_in_dim: int,
        out_dim: int,
        embeddings_act: nn.Module | None = None,
        embeddings_norm: nn.Module | None = None,
        embeddings_dropout: nn.Module | None = None,
        embeddings_pos: nn.Parameter | None = None,
    ) -> None:
        super().__init__()
        self.in_dim, self.g_in_dim = in_dim, g_in_dim
        self.embeddings = nn.Linear(in_dim, out_dim)
        self.g_embeddings = nn.Linear(g_in_dim, out_dim) if g_in_dim > 0 else None
        self.embeddings_act = embeddings_act
        self.embeddings_norm = embeddings_norm
        self.embeddings_dropout = embeddings_dropout
        self.embeddings_pos = embeddings_pos

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node, tokens = cfg.MODEL.VISUAL_EMBED, cfg.DATALOADER.MAX_FEAT_NUM
        if tokens <= 0:
            raise UserError(
                f"DATALOADER.MAX_FEAT_NUM is {tokens}; VisualGridEmbedding needs the number of "
                "grid cells plus one for the global feature, for example 50 for a 7 x 7 grid"
            )
        position = nn.Parameter(torch.zeros(1, tokens, node.OUT_DIM))
        nn.init.trunc_normal_(position, std=0.02)
        return {
            "in_dim": node.IN_DIM,
            "g_in_dim": node.G_IN_DIM,
            "out_dim": node.OUT_DIM,
            **visual_layers(cfg, with_location=False),
            "embeddings_pos": position,
        }

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """Embed ATT_FEATS (B, N, in) and GLOBAL_FEATS (B, g_in) to (B, N + 1, out).

        ATT_MASKS (B, N), if present, is lengthened by its own first column.
        """
        feats = features_of(
            batched_inputs, kfg.ATT_FEATS, self.in_dim, "MODEL.VISUAL_EMBED.IN_DIM", self
        )
        produced = {}
        x = self.embeddings(feats)
        if self.g_embeddings is not None:
            x = torch.cat([self._global_token(batched_inputs), x], dim=1)
            masks = batched_inputs.get(kfg.ATT_MASKS)
            if masks is not None:
                produced[kfg.ATT_MASKS] = torch.cat([masks[:, :1], masks], dim=1)
        if self.embeddings_pos is not None:
            if x.shape[1] > self.embeddings_pos.shape[1]:
                raise UserError(
                    f"{x.shape[1]} visual tokens exceed the {self.embeddings_pos.shape[1]} "
                    "positions of the model; set DATALOADER.MAX_FEAT_NUM to the number of grid "
                    "cells plus one"
                )
            x = x + self.embeddings_pos[:, : x.shape[1]]
        for layer in (self.embeddings_act, self.embeddings_norm, self.embeddings_dropout):
            if layer is not None:
                x = layer(x)
        return {kfg.ATT_FEATS: x, **produced}

    def _global_token(self, batched_inputs: dict[str, Any]) -> Tensor:
        flat = dict(batched_inputs)
        if kfg.GLOBAL_FEATS in flat:  # (B, 1, g_in) where one vector per image was stored so
            flat[kfg.GLOBAL_FEATS] = flat[kfg.GLOBAL_FEATS].flatten(1)
        setting = "MODEL.VISUAL_EMBED.G_IN_DIM (0 for no global token)"
        feats = features_of(flat, kfg.GLOBAL_FEATS, self.g_in_dim, setting, self)
        return self.g_embeddings(feats).unsqueeze(1)
