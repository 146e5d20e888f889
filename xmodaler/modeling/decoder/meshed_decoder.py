"""The decoder of the Meshed-Memory Transformer."""

from typing import Any

from torch import nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.bert_attention import KeysValues
from ..layers.meshed_attention import MeshedDecoderLayer
from ..stage_keys import ATT_PACKING
from .build import DECODER_REGISTRY
from .cached_decoder import CachedDecoder


@DECODER_REGISTRY.register()
class MeshedDecoder(CachedDecoder):
    """Layers that attend to every layer of the encoder (Cornia et al., CVPR 2020, section 3.2).

    See :class:`~xmodaler.modeling.layers.meshed_attention.MeshedDecoderLayer`. Keys and values of
    all encoder layers are projected once per image, those of the words once per word.

    Args:
        layers: The layers.
    """

    @configurable
    def __init__(self, *, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node, encoder = cfg.MODEL.MESHEDMEORY.DECODER, cfg.MODEL.MESHEDMEORY.get("ENCODER")
        if encoder is None or not encoder.ALL_LAYERS:
            raise UserError(
                f"{cls.__name__} attends to all layers of the encoder; set MODEL.ENCODER to "
                "MemoryAugmentedEncoder and MODEL.MESHEDMEORY.ENCODER.ALL_LAYERS to True"
            )
        _check_widths(cfg, cls.__name__)
        layers = nn.ModuleList(
            MeshedDecoderLayer(
                dim_model=node.DIM_MODEL,
                num_heads=node.NUM_ATT_HEAD,
                dim_feedforward=node.DIM_FEEDFORWARD,
                dropout=node.DROPOUT,
                num_levels=encoder.NUM_LAYER,
            )
            for _ in range(node.NUM_LAYER)
        )
        return {"layers": layers}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.MESHEDMEORY.DECODER."""
        if "MESHEDMEORY" not in cfg.MODEL:
            cfg.MODEL.MESHEDMEORY = CfgNode()
        cfg.MODEL.MESHEDMEORY.DECODER = CfgNode(
            {
                "DIM_MODEL": 512,
                "NUM_LAYER": 3,
                "DROPOUT": 0.1,
                "NUM_ATT_HEAD": 8,
                "DIM_FEEDFORWARD": 2048,
            }
        )

    @property
    def stack(self) -> nn.ModuleList:
        return self.layers

    def memories(self, batched_inputs: dict[str, Any]) -> list[KeysValues]:
        """Keys and values of ATT_FEATS (B, L, N, D) for every layer."""
        feats = batched_inputs[kfg.ATT_FEATS]
        if feats.dim() != 4:
            raise UserError(
                f"MeshedDecoder needs {kfg.ATT_FEATS} of every encoder layer, (images, layers, "
                f"regions, width), but got shape {tuple(feats.shape)}"
            )
        visible, packing = batched_inputs[kfg.ATT_MASKS], batched_inputs.get(ATT_PACKING)
        return [
            layer.enc_att.attention.project_levels(feats, visible, packing) for layer in self.layers
        ]


def _check_widths(cfg: CfgNode, owner: str) -> None:
    """Refuse widths that differ from that of the decoder."""
    meshed = cfg.MODEL.MESHEDMEORY
    widths = {
        "MODEL.MESHEDMEORY.ENCODER.DIM_MODEL": meshed.ENCODER.DIM_MODEL,
        "MODEL.TOKEN_EMBED.DIM": cfg.MODEL.TOKEN_EMBED.DIM,
    }
    if cfg.MODEL.PREDICTOR == "BasePredictor":
        widths["MODEL.DECODER_DIM"] = cfg.MODEL.DECODER_DIM
    for key, width in widths.items():
        if width != meshed.DECODER.DIM_MODEL:
            raise UserError(
                f"{owner} needs {key} to equal MODEL.MESHEDMEORY.DECODER.DIM_MODEL, but they are "
                f"{width} and {meshed.DECODER.DIM_MODEL}"
            )
