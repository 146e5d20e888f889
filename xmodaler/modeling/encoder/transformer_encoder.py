"""The Transformer encoder over regions."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.bert import BertLayer
from ..layers.masking import over_keys
from ..layers.packing import pack_or_flatten, unpack_or_keep
from ..stage_keys import ATT_PACKING
from .build import ENCODER_REGISTRY


def check_widths(cfg: CfgNode, keys: dict[str, int], owner: str) -> None:
    """Refuse widths that differ from ``MODEL.BERT.HIDDEN_SIZE``."""
    width = cfg.MODEL.BERT.HIDDEN_SIZE
    for key, value in keys.items():
        if value != width:
            raise UserError(
                f"{owner} needs {key} to equal MODEL.BERT.HIDDEN_SIZE, but they are {value} "
                f"and {width}"
            )


def visual_width_keys(cfg: CfgNode) -> dict[str, int]:
    """The setting that decides how wide embedded visual features are, and its value."""
    node = cfg.MODEL.VISUAL_EMBED
    if node.NAME == "VisualIdentityEmbedding":
        return {"MODEL.VISUAL_EMBED.IN_DIM": node.IN_DIM}
    return {"MODEL.VISUAL_EMBED.OUT_DIM": node.OUT_DIM}


@ENCODER_REGISTRY.register()
class TransformerEncoder(nn.Module):
    """A stack of post-norm self-attention layers without positions (Vaswani et al. 2017).

    Args:
        num_hidden_layers: Number of layers.
        bert_layers: The layers.
    """

    accepts_packing = True

    @configurable
    def __init__(self, *, num_hidden_layers: int, bert_layers: nn.ModuleList) -> None:
        super().__init__()
        self.num_hidden_layers = num_hidden_layers
        self.layers = bert_layers

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        check_widths(cfg, visual_width_keys(cfg), cls.__name__)
        layers = nn.ModuleList(BertLayer(cfg) for _ in range(cfg.MODEL.BERT.NUM_HIDDEN_LAYERS))
        return {"num_hidden_layers": cfg.MODEL.BERT.NUM_HIDDEN_LAYERS, "bert_layers": layers}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """ATT_FEATS (B, N, D) encoded under EXT_ATT_MASKS, (B, 1, 1, N) or (B, N), in mode 'v'."""
        if mode is not None and "v" not in mode:
            return {}
        packing = batched_inputs.get(ATT_PACKING)
        x = pack_or_flatten(batched_inputs[kfg.ATT_FEATS], packing)
        mask = over_keys(batched_inputs[kfg.EXT_ATT_MASKS])
        for layer in self.layers:
            x, _ = layer(x, mask, packing=packing)
        return {kfg.ATT_FEATS: unpack_or_keep(x, packing)}
