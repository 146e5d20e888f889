"""The Transformer decoder."""

from typing import Any

from torch import nn

from xmodaler.config import CfgNode, configurable, kfg

from ..encoder.transformer_encoder import check_widths
from ..layers.bert import BertGenerationLayer
from ..layers.bert_attention import KeysValues
from ..layers.packing import pack_or_flatten
from ..stage_keys import ATT_PACKING
from .build import DECODER_REGISTRY
from .cached_decoder import CachedDecoder


@DECODER_REGISTRY.register()
class TransformerDecoder(CachedDecoder):
    """A stack of post-norm layers: causal self-attention, attention to the image, feed-forward.

    Vaswani et al. 2017; on images Sharma et al. 2018. Keys and values of the image are projected
    once per image, those of the words once per word.

    Args:
        num_generation_layers: Number of layers.
        bert_generation_layers: The layers.
    """

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

    @property
    def stack(self) -> nn.ModuleList:
        return self.g_layers

    def memories(self, batched_inputs: dict[str, Any]) -> list[KeysValues]:
        """Keys and values of the image for every layer."""
        packing = batched_inputs.get(ATT_PACKING)
        source = pack_or_flatten(batched_inputs[kfg.ATT_FEATS], packing)
        return [layer.x_att.self.project_memory(source, source, packing) for layer in self.stack]
