"""The decoder of the Meshed-Memory Transformer."""

from typing import Any

import torch
from torch import nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.kv_cache import empty_cache, own_slots, slot_mask
from ..layers.masking import compute_dtype
from ..layers.meshed_attention import MeshedDecoderLayer
from ..stage_keys import (
    ATT_PACKING,
    ATTENTION_WEIGHTS,
    DECODER_CACHE,
    G_PACKING,
    RETURN_ATTENTION,
    STEP_WEIGHTS,
)
from .build import DECODER_REGISTRY
from .decoder import Decoder


@DECODER_REGISTRY.register()
class MeshedDecoder(Decoder):
    """Layers that attend to every layer of the encoder (Cornia et al., CVPR 2020, section 3.2).

    See :class:`~xmodaler.modeling.layers.meshed_attention.MeshedDecoderLayer`. Keys and values of
    all encoder layers are projected once per image, those of the words once per word.

    Args:
        layers: The layers.
    """

    folds_queries = True
    accepts_packing = True

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

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        return [linear for layer in self.layers for linear in layer.step_layers()]

    def preprocess(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, keys and values of ATT_FEATS (B, L, N, D), and an empty history."""
        feats = batched_inputs[kfg.ATT_FEATS]
        if feats.dim() != 4:
            raise UserError(
                f"MeshedDecoder needs {kfg.ATT_FEATS} of every encoder layer, (images, layers, "
                f"regions, width), but got shape {tuple(feats.shape)}"
            )
        visible, packing = batched_inputs[kfg.ATT_MASKS], batched_inputs.get(ATT_PACKING)
        return {
            kfg.P_ATT_FEATS: [
                layer.enc_att.attention.project_levels(feats, visible, packing)
                for layer in self.layers
            ],
            kfg.HISTORY_STATES: torch.zeros(
                feats.shape[0], 0, dtype=torch.long, device=feats.device
            ),
            DECODER_CACHE: empty_cache(len(self.layers)),
        }

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """All positions, or the one at TIME_STEP while decoding.

        G_TOKEN_EMBED is (R, T, D), or (count, D) with a text packing, or (R, D) while decoding;
        G_HIDDEN_STATES is a list of one such tensor per layer.
        """
        if kfg.TIME_STEP in batched_inputs:
            return self._step(batched_inputs)
        y, hidden = batched_inputs[kfg.G_TOKEN_EMBED], []
        for layer, memory in zip(self.layers, batched_inputs[kfg.P_ATT_FEATS], strict=True):
            y = layer(
                y,
                memory,
                batched_inputs[kfg.EXT_G_TOKENS_MASKS],
                batched_inputs[kfg.EXT_ATT_MASKS],
                batched_inputs.get(G_PACKING),
            )
            hidden.append(y)
        return {kfg.G_HIDDEN_STATES: hidden}

    def _step(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        y, memories = batched_inputs[kfg.G_TOKEN_EMBED], batched_inputs[kfg.P_ATT_FEATS]
        cache = dict(batched_inputs[DECODER_CACHE])
        cache["keys"], cache["values"] = list(cache["keys"]), list(cache["values"])
        images = batched_inputs[kfg.ATT_FEATS].shape[0]
        groups = y.shape[0] // images
        slots = own_slots(batched_inputs[kfg.HISTORY_STATES], cache["used"], groups)
        mask = slot_mask(slots, cache["used"] + groups, images, compute_dtype(y))
        need_weights = bool(batched_inputs.get(RETURN_ATTENTION, False))
        hidden, attention = [], None
        for number, (layer, memory) in enumerate(zip(self.layers, memories, strict=True)):
            last = number == len(self.layers) - 1
            y, attention = layer.step(
                y,
                memory,
                cache,
                number,
                mask,
                batched_inputs[kfg.EXT_ATT_MASKS],
                need_weights and last,
                batched_inputs.get(STEP_WEIGHTS),
            )
            hidden.append(y)
        cache["used"] += groups
        produced = {
            kfg.G_HIDDEN_STATES: hidden,
            kfg.HISTORY_STATES: slots,
            DECODER_CACHE: cache,
        }
        if attention is not None:
            produced[ATTENTION_WEIGHTS] = attention.mean(dim=1).flatten(0, 1)
        return produced


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
