"""TDEN as a captioner."""

from typing import Any

from xmodaler.config import CfgNode

from .batches import Batch
from .bert_masks import bert_masks
from .build import META_ARCH_REGISTRY
from .transformer_enc_dec import TransformerEncoderDecoder


@META_ARCH_REGISTRY.register()
class TDENCaptioner(TransformerEncoderDecoder):
    """Causal text layers, then generation layers that see the encoded regions.

    Li et al., "Scheduled Sampling in Vision-Language Pretraining with Decoupled Encoder-Decoder
    Network", AAAI 2021. While decoding, keys and values of the words are kept in both stacks. The
    input words are always the given ones, whatever SS_PROB is.
    """

    feeds_own_words = False

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {**super().from_config(cfg), "v_predictor": None}

    def get_extended_attention_mask(self, batched_inputs: Batch) -> Batch:
        """The masks of :func:`~xmodaler.modeling.meta_arch.bert_masks.bert_masks`."""
        return bert_masks(batched_inputs)
