"""Encoders: relations within a picture (or a text)."""

from .build import ENCODER_REGISTRY, add_encoder_config, build_encoder
from .encoder import Encoder
from .gtransformer_encoder import GTransformerEncoder
from .memory_augmented_encoder import MemoryAugmentedEncoder
from .tdconved_encoder import TDConvEDEncoder
from .transformer_encoder import TransformerEncoder
from .updown_encoder import UpDownEncoder

__all__ = [
    "ENCODER_REGISTRY",
    "Encoder",
    "GTransformerEncoder",
    "MemoryAugmentedEncoder",
    "TDConvEDEncoder",
    "TransformerEncoder",
    "UpDownEncoder",
    "add_encoder_config",
    "build_encoder",
]
