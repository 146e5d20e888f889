"""The decoder of COS-Net."""

import random
from typing import Any

from torch import nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..encoder.transformer_encoder import check_widths
from ..layers.bert import BertIntermediate, BertOutput
from ..layers.cosnet_attention import COSNetAttention, COSNetDecoderLayer, Masks, Memory
from ..layers.grouping import queries_per_image
from .build import DECODER_REGISTRY
from .cached_decoder import CachedDecoder


@DECODER_REGISTRY.register()
class COSNetDecoder(CachedDecoder):
    """Layers with gated attention to words, grid and semantic words (Li et al., CVPR 2022).

    See :class:`~xmodaler.modeling.layers.cosnet_attention.COSNetAttention`. In training
    layer i of n is left out of a batch with probability ``layer_drop * i / n`` (Huang et al.
    2016), drawn from Python's ``random``, whose state checkpoints keep.

    Args:
        layers: The layers.
        layer_drop: Probability of leaving out the last layer.
    """

    @configurable
    def __init__(self, *, layers: nn.ModuleList, layer_drop: float = 0.0) -> None:
        super().__init__()
        self.g_layers = layers
        self.layer_drop = layer_drop

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        widths = {"MODEL.TOKEN_EMBED.DIM": cfg.MODEL.TOKEN_EMBED.DIM}
        if cfg.MODEL.PREDICTOR == "BasePredictor":
            widths["MODEL.DECODER_DIM"] = cfg.MODEL.DECODER_DIM
        check_widths(cfg, widths, cls.__name__)
        bert = cfg.MODEL.BERT
        layers = nn.ModuleList(
            COSNetDecoderLayer(
                attn=COSNetAttention(
                    hidden_size=bert.HIDDEN_SIZE,
                    num_attention_heads=bert.NUM_ATTENTION_HEADS,
                    attention_probs_dropout_prob=bert.ATTENTION_PROBS_DROPOUT_PROB,
                    hidden_dropout_prob=bert.HIDDEN_DROPOUT_PROB,
                ),
                bert_intermediate=BertIntermediate(cfg),
                bert_output=BertOutput(cfg),
            )
            for _ in range(bert.NUM_GENERATION_LAYERS)
        )
        return {"layers": layers, "layer_drop": bert.LAYER_DROP}

    @property
    def stack(self) -> nn.ModuleList:
        return self.g_layers

    def memories(self, batched_inputs: dict[str, Any]) -> list[Memory | None]:
        """Keys and values of ATT_FEATS (B, N, D) and SEMANTICS_FEATS (Bs, M, D) for each layer."""
        picture, semantics = batched_inputs[kfg.ATT_FEATS], batched_inputs.get(kfg.SEMANTICS_FEATS)
        if semantics is None:
            raise UserError(
                f"{kfg.SEMANTICS_FEATS} is missing; COSNetDecoder needs an encoder of semantic "
                "words: set MODEL.ENCODER to COSNetEncoder"
            )
        return [
            None if dropped else layer.attn.project_memory(picture, semantics)
            for layer, dropped in zip(self.g_layers, self._dropped(), strict=True)
        ]

    def memory_masks(self, batched_inputs: dict[str, Any]) -> Masks:
        """EXT_ATT_MASKS and EXT_SEMANTICS_MASKS."""
        return batched_inputs[kfg.EXT_ATT_MASKS], batched_inputs[kfg.EXT_SEMANTICS_MASKS]

    def prepare_steps(self, batched_inputs: dict[str, Any]) -> dict[str, Any]:
        """One set of semantic words per image; a training batch has one per caption."""
        mask = batched_inputs[kfg.EXT_SEMANTICS_MASKS]
        groups = queries_per_image(mask.shape[0], batched_inputs[kfg.ATT_FEATS].shape[0])
        if groups == 1:
            return {}

        def first(memory: Memory | None) -> Memory | None:
            if memory is None:
                return None
            picture, (keys, values) = memory
            return picture, (keys[::groups], values[::groups])

        memories = [first(memory) for memory in batched_inputs[kfg.P_ATT_FEATS]]
        return {kfg.P_ATT_FEATS: memories, kfg.EXT_SEMANTICS_MASKS: mask[::groups]}

    def _dropped(self) -> list[bool]:
        """Which layers this batch leaves out."""
        count = len(self.g_layers)
        if not self.training or self.layer_drop <= 0:
            return [False] * count
        return [random.random() < self.layer_drop * i / count for i in range(1, count + 1)]
