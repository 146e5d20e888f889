"""The encoder of the Meshed-Memory Transformer."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.masking import over_keys
from ..layers.memory_attention import MemoryEncoderLayer
from ..layers.packing import pack_or_flatten, unpack_or_keep
from ..stage_keys import ATT_PACKING
from .build import ENCODER_REGISTRY
from .transformer_encoder import visual_width_keys


@ENCODER_REGISTRY.register()
class MemoryAugmentedEncoder(nn.Module):
    """Self-attention layers with learned memory, all of whose outputs are handed on.

    Cornia et al., CVPR 2020, section 3.1. Every layer is ``FF(Attention(x))`` with post-norm
    blocks, and the outputs of all L layers are stacked for meshed attention.

    Args:
        layers: The layers.
        all_layers: Give the outputs of all layers; False gives that of the last.
    """

    accepts_packing = True

    @configurable
    def __init__(self, *, layers: nn.ModuleList, all_layers: bool = True) -> None:
        super().__init__()
        self.layers = layers
        self.all_layers = all_layers

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.MESHEDMEORY.ENCODER
        for key, width in visual_width_keys(cfg).items():
            if width != node.DIM_MODEL:
                raise UserError(
                    f"{cls.__name__} needs {key} to equal MODEL.MESHEDMEORY.ENCODER.DIM_MODEL, "
                    f"but they are {width} and {node.DIM_MODEL}"
                )
        layers = nn.ModuleList(
            MemoryEncoderLayer(
                dim_model=node.DIM_MODEL,
                num_heads=node.NUM_ATT_HEAD,
                num_memory=node.NUM_ATT_MEMORY,
                dim_feedforward=node.DIM_FEEDFORWARD,
                dropout=node.DROPOUT,
            )
            for _ in range(node.NUM_LAYER)
        )
        return {"layers": layers, "all_layers": node.ALL_LAYERS}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.MESHEDMEORY.ENCODER."""
        if "MESHEDMEORY" not in cfg.MODEL:
            cfg.MODEL.MESHEDMEORY = CfgNode()
        cfg.MODEL.MESHEDMEORY.ENCODER = CfgNode(
            {
                "DIM_MODEL": 512,
                "NUM_LAYER": 3,
                "DROPOUT": 0.1,
                "NUM_ATT_HEAD": 8,
                "NUM_ATT_MEMORY": 40,
                "DIM_FEEDFORWARD": 2048,
                # False gives the last layer alone, for decoders other than MeshedDecoder.
                "ALL_LAYERS": True,
            }
        )

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """ATT_FEATS (B, L, N, D) of ATT_FEATS (B, N, D), in mode 'v'; (B, N, D) of the last layer.

        EXT_ATT_MASKS is (B, 1, 1, N) or (B, N).
        """
        if mode is not None and "v" not in mode:
            return {}
        packing = batched_inputs.get(ATT_PACKING)
        x = pack_or_flatten(batched_inputs[kfg.ATT_FEATS], packing)
        mask, outputs = over_keys(batched_inputs[kfg.EXT_ATT_MASKS]), []
        for layer in self.layers:
            x = layer(x, F.pad(mask, (0, layer.mhatt.attention.num_memory)), packing)
            outputs.append(unpack_or_keep(x, packing))
        return {kfg.ATT_FEATS: torch.stack(outputs, dim=1) if self.all_layers else outputs[-1]}
