"""The Up-Down decoder."""

from typing import Any

import torch
from torch import nn

from xmodaler.config import CfgNode, configurable, kfg

from ..attention import AdditiveAttention, build_attention
from ..layers.packing import pack_or_flatten, unpack_or_keep
from ..stage_keys import ATT_PACKING, ATTENTION_WEIGHTS, RETURN_ATTENTION
from .build import DECODER_REGISTRY
from .decoder import Decoder


@DECODER_REGISTRY.register()
class UpDownDecoder(Decoder):
    """Top-down attention between two LSTMs (Anderson et al. 2018, section 3.2).

    ``h1, c1 = LSTM1(drop1([h2; g; x]))``, ``a = att(h1, f)``, ``h2, c2 = LSTM2(drop2([a; h1]))``;
    the words come from h2. States begin at zero.

    Args:
        hidden_size: Width H of both LSTMs.
        token_embed_dim: Width of the word embedding x.
        visual_embed_dim: Width of the regions f and of the global feature g.
        att_embed_size: Inner width of the attention.
        dropout1: Dropout on the input of LSTM1.
        dropout2: Dropout on the input of LSTM2.
        att_embed_dropout: Dropout inside additive attention.
        attention: The cross-modal attention; additive attention by default.
    """

    folds_queries = True
    num_layers = 2

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        token_embed_dim: int,
        visual_embed_dim: int,
        att_embed_size: int,
        dropout1: float,
        dropout2: float,
        att_embed_dropout: float,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.hidden_size = hidden_size
        self.lstm1 = nn.LSTMCell(hidden_size + visual_embed_dim + token_embed_dim, hidden_size)
        self.lstm2 = nn.LSTMCell(hidden_size + visual_embed_dim, hidden_size)
        self.att = attention or AdditiveAttention(
            query_dim=hidden_size,
            memory_dim=visual_embed_dim,
            embed_dim=att_embed_size,
            dropout=att_embed_dropout,
        )
        self.p_att_feats = self.att.memory_projection()
        self.dropout1 = nn.Dropout(dropout1) if dropout1 > 0 else None
        self.dropout2 = nn.Dropout(dropout2) if dropout2 > 0 else None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.UPDOWN
        sizes = {
            "hidden_size": cfg.MODEL.DECODER_DIM,
            "token_embed_dim": cfg.MODEL.TOKEN_EMBED.DIM,
            "visual_embed_dim": cfg.MODEL.VISUAL_EMBED.OUT_DIM,
            "att_embed_size": node.ATT_EMBED_SIZE,
            "att_embed_dropout": node.ATT_EMBED_DROPOUT,
        }
        attention = build_attention(
            cfg,
            query_dim=sizes["hidden_size"],
            memory_dim=sizes["visual_embed_dim"],
            embed_dim=sizes["att_embed_size"],
            dropout=sizes["att_embed_dropout"],
        )
        dropouts = {"dropout1": node.DROPOUT1, "dropout2": node.DROPOUT2}
        return {**sizes, **dropouts, "attention": attention}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.UPDOWN."""
        cfg.MODEL.UPDOWN = CfgNode(
            {"ATT_EMBED_SIZE": 512, "DROPOUT1": 0.0, "DROPOUT2": 0.0, "ATT_EMBED_DROPOUT": 0.0}
        )

    def preprocess(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, the prepared attention memory of each image, and zero states."""
        feats = batched_inputs[kfg.ATT_FEATS]
        packing = batched_inputs.get(ATT_PACKING)
        projected = unpack_or_keep(self.p_att_feats(pack_or_flatten(feats, packing)), packing)
        memory = self.att.precompute(feats, batched_inputs.get(kfg.EXT_ATT_MASKS), projected)
        return {kfg.P_ATT_FEATS: memory, **self.init_states(feats.shape[0])}

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """One step: G_TOKEN_EMBED (R, E) and two states (R, H) give two new states."""
        x = batched_inputs[kfg.G_TOKEN_EMBED]
        h1, h2 = batched_inputs[kfg.G_HIDDEN_STATES]
        c1, c2 = batched_inputs[kfg.G_CELL_STATES]
        g = batched_inputs[kfg.GLOBAL_FEATS].flatten(1)
        g = g.repeat_interleave(x.shape[0] // g.shape[0], dim=0)
        first = torch.cat([h2, g, x], dim=-1)
        if self.dropout1 is not None:
            first = self.dropout1(first)
        h1, c1 = self.lstm1(first, (h1, c1))
        need_weights = bool(batched_inputs.get(RETURN_ATTENTION, False))
        attended, weights = self.att(h1, batched_inputs[kfg.P_ATT_FEATS], need_weights)
        second = torch.cat([attended, h1], dim=-1)
        if self.dropout2 is not None:
            second = self.dropout2(second)
        h2, c2 = self.lstm2(second, (h2, c2))
        produced: dict[str, Any] = {kfg.G_HIDDEN_STATES: [h1, h2], kfg.G_CELL_STATES: [c1, c2]}
        if need_weights:
            produced[ATTENTION_WEIGHTS] = weights
        return produced
