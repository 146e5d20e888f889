"""Decoders: from picture and words so far to the next word."""

from .build import DECODER_REGISTRY, add_decoder_config, build_decoder
from .decoder import Decoder
from .recurrent_decoder import RecurrentDecoder
from .transformer_decoder import TransformerDecoder
from .updown_decoder import UpDownDecoder

__all__ = [
    "DECODER_REGISTRY",
    "Decoder",
    "RecurrentDecoder",
    "TransformerDecoder",
    "UpDownDecoder",
    "add_decoder_config",
    "build_decoder",
]
