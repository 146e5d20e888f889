"""The Transformer decoder."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg

from ..encoder.transformer_encoder import check_widths
from ..layers.bert import BertGenerationLayer
from ..layers.kv_cache import empty_cache, own_slots, slot_mask
from ..layers.masking import compute_dtype
from ..layers.packing import pack_or_flatten
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
class TransformerDecoder(Decoder):
    """A stack of post-norm layers: causal self-attention, attention to the image, feed-forward.

    Vaswani et al. 2017; on images Sharma et al. 2018. Keys and values of the image are projected
    once per image, those of the words once per word.

    Args:
        num_generation_layers: Number of layers.
        bert_generation_layers: The layers.
    """

    folds_queries = True
    accepts_packing = True

    @configurable
    def __init__(
        self, *, num_generation_layers: int, bert_generation_layers: nn.ModuleList
    ) -> None:
        super().__init__()
        self.num_generation_layers = num_generation_layers
        self.g_layers = bert_generation_layers

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        widths = {"MODEL.TOKEN_EMBED.DIM": cfg.MODEL.TOKEN_EMBED.DIM}
        if cfg.MODEL.PREDICTOR == "BasePredictor":
            widths["MODEL.DECODER_DIM"] = cfg.MODEL.DECODER_DIM
        check_widths(cfg, widths, cls.__name__)
        count = cfg.MODEL.BERT.NUM_GENERATION_LAYERS
        return {
            "num_generation_layers": count,
            "bert_generation_layers": nn.ModuleList(BertGenerationLayer(cfg) for _ in range(count)),
        }

    def step_layers(self) -> list[nn.Linear]:
        """The layers that every step runs through."""
        return [linear for layer in self.g_layers for linear in layer.step_layers()]

    def preprocess(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """P_ATT_FEATS, keys and values of the image for every layer, and an empty history."""
        packing = batched_inputs.get(ATT_PACKING)
        feats = batched_inputs[kfg.ATT_FEATS]
        source = pack_or_flatten(feats, packing)
        slots = torch.zeros(feats.shape[0], 0, dtype=torch.long, device=feats.device)
        return {
            kfg.P_ATT_FEATS: [
                layer.x_att.self.project_memory(source, source, packing) for layer in self.g_layers
            ],
            kfg.HISTORY_STATES: slots,
            DECODER_CACHE: empty_cache(len(self.g_layers)),
        }

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """All positions, or the one at TIME_STEP while decoding.

        G_TOKEN_EMBED is (R, T, D), or (count, D) with a text packing, or (R, D) while decoding;
        G_HIDDEN_STATES is a list of one such tensor per layer.
        """
        if kfg.TIME_STEP in batched_inputs:
            return self._step(batched_inputs)
        packing = batched_inputs.get(G_PACKING)
        x = batched_inputs[kfg.G_TOKEN_EMBED]
        hidden = []
        for layer, memory in zip(self.g_layers, batched_inputs[kfg.P_ATT_FEATS], strict=True):
            x = layer(
                x,
                memory,
                batched_inputs[kfg.EXT_G_TOKENS_MASKS],
                batched_inputs[kfg.EXT_ATT_MASKS],
                packing=packing,
            )
            hidden.append(x)
        return {kfg.G_HIDDEN_STATES: hidden}

    def _step(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        x = batched_inputs[kfg.G_TOKEN_EMBED]
        memories = batched_inputs[kfg.P_ATT_FEATS]
        cache = dict(batched_inputs[DECODER_CACHE])
        cache["keys"], cache["values"] = list(cache["keys"]), list(cache["values"])
        images = batched_inputs[kfg.ATT_FEATS].shape[0]
        groups = x.shape[0] // images
        slots = own_slots(batched_inputs[kfg.HISTORY_STATES], cache["used"], groups)
        mask = slot_mask(slots, cache["used"] + groups, images, compute_dtype(x))
        need_weights = bool(batched_inputs.get(RETURN_ATTENTION, False))
        hidden: list[Tensor] = []
        weights = None
        for number, (layer, memory) in enumerate(zip(self.g_layers, memories, strict=True)):
            last = number == len(self.g_layers) - 1
            x, weights = layer.step(
                x,
                memory,
                cache,
                number,
                mask,
                batched_inputs[kfg.EXT_ATT_MASKS],
                need_weights and last,
                batched_inputs.get(STEP_WEIGHTS),
            )
            hidden.append(x)
        cache["used"] += groups
        produced: dict[str, Any] = {
            kfg.G_HIDDEN_STATES: hidden,
            kfg.HISTORY_STATES: slots,
            DECODER_CACHE: cache,
        }
        if weights is not None:
            produced[ATTENTION_WEIGHTS] = weights.mean(dim=1).flatten(0, 1)
        return produced
