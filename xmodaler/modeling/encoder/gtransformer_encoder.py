"""The Transformer encoder over a grid with a global token."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.bert import BertLayer
from ..layers.masking import over_keys
from .build import ENCODER_REGISTRY
from .transformer_encoder import check_widths, visual_width_keys


@ENCODER_REGISTRY.register()
class GTransformerEncoder(nn.Module):
    """Self-attention layers whose global token is re-made from its value at every depth.

    With ``h_l`` the token at position 0 after layer l (``h_0`` before the first of n layers),
    ``g = LN(W [h_0; ...; h_n] + b)`` takes its place in front of the last layer's grid
    (base network of COS-Net, Li et al. 2022).

    Args:
        hidden_size: Width D.
        num_hidden_layers: Number of layers.
        bert_layers: The layers.
    """

    @configurable
    def __init__(
        self, *, hidden_size: int, num_hidden_layers: int, bert_layers: nn.ModuleList
    ) -> None:
        super().__init__()
        self.num_hidden_layers = num_hidden_layers
        self.layers = bert_layers
        self.gvfeat_embed = nn.Sequential(
            nn.Linear(hidden_size * (num_hidden_layers + 1), hidden_size),
            nn.LayerNorm(hidden_size),
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        check_widths(cfg, visual_width_keys(cfg), cls.__name__)
        if cfg.MODEL.VISUAL_EMBED.NAME == "TimmEmbedding" and not cfg.MODEL.TIMM.GLOBAL_TOKEN:
            raise UserError(
                "GTransformerEncoder needs a global token in front of the grid; "
                "set MODEL.TIMM.GLOBAL_TOKEN True"
            )
        bert = cfg.MODEL.BERT
        return {
            "hidden_size": bert.HIDDEN_SIZE,
            "num_hidden_layers": bert.NUM_HIDDEN_LAYERS,
            "bert_layers": nn.ModuleList(BertLayer(cfg) for _ in range(bert.NUM_HIDDEN_LAYERS)),
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.COSNET.NUM_CLASSES, which the data set of the grid models reads."""
        if "COSNET" not in cfg.MODEL:
            cfg.MODEL.COSNET = CfgNode()
        cfg.MODEL.COSNET.NUM_CLASSES = 906

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """ATT_FEATS (B, M, D) encoded under EXT_ATT_MASKS, in mode 'v'; M is N + 1.

        The mask is (B, 1, 1, M) or (B, M).
        """
        if mode is not None and "v" not in mode:
            return {}
        x = batched_inputs[kfg.ATT_FEATS]
        depths, mask = [x[:, 0]], over_keys(batched_inputs[kfg.EXT_ATT_MASKS])
        for layer in self.layers:
            x, _ = layer(x, mask)
            depths.append(x[:, 0])
        global_token = self.gvfeat_embed(torch.cat(depths, dim=-1))
        return {kfg.ATT_FEATS: torch.cat([global_token.unsqueeze(1), x[:, 1:]], dim=1)}
