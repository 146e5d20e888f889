"""Encoders: relations within a picture (or a text)."""

from .build import ENCODER_REGISTRY, add_encoder_config, build_encoder
from .co_attention_bert_encoder import CoAttentionBertEncoder
from .conv_encoder import ConvEncoder
from .cosnet_encoder import COSNetEncoder
from .encoder import Encoder
from .gcn_encoder import GCNEncoder
from .gtransformer_encoder import GTransformerEncoder
from .low_rank_bilinear_encoder import LowRankBilinearEncoder
from .lstm_encoder import LSTMEncoder
from .memory_augmented_encoder import MemoryAugmentedEncoder
from .prompted_fusion_encoder import PromptedFusionEncoder
from .single_stream_bert_encoder import SingleStreamBertEncoder
from .tag_encoder import TagEncoder
from .tdconved_encoder import TDConvEDEncoder
from .text_fusion_encoder import FusionMemory, TextFusionEncoder
from .transformer_encoder import TransformerEncoder
from .two_stream_bert_encoder import TwoStreamBertEncoder
from .updown_encoder import UpDownEncoder

__all__ = [
    "ENCODER_REGISTRY",
    "COSNetEncoder",
    "CoAttentionBertEncoder",
    "ConvEncoder",
    "Encoder",
    "FusionMemory",
    "GCNEncoder",
    "GTransformerEncoder",
    "LSTMEncoder",
    "LowRankBilinearEncoder",
    "MemoryAugmentedEncoder",
    "PromptedFusionEncoder",
    "SingleStreamBertEncoder",
    "TDConvEDEncoder",
    "TagEncoder",
    "TextFusionEncoder",
    "TransformerEncoder",
    "TwoStreamBertEncoder",
    "UpDownEncoder",
    "add_encoder_config",
    "build_encoder",
]
