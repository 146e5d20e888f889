"""Decoders: from picture and words so far to the next word."""

from .attribute_decoder import AttributeDecoder
from .build import DECODER_REGISTRY, add_decoder_config, build_decoder
from .decoder import Decoder
from .gru_decoder import GRUDecoder
from .mplstm_decoder import MPLSTMDecoder
from .recurrent_decoder import RecurrentDecoder
from .salstm_decoder import SALSTMDecoder
from .single_cell_decoder import SingleCellDecoder
from .meshed_decoder import MeshedDecoder
from .transformer_decoder import TransformerDecoder
from .updown_decoder import UpDownDecoder

__all__ = [
    "DECODER_REGISTRY",
    "AttributeDecoder",
    "Decoder",
    "MeshedDecoder",
    "GRUDecoder",
    "MPLSTMDecoder",
    "RecurrentDecoder",
    "SALSTMDecoder",
    "SingleCellDecoder",
    "TransformerDecoder",
    "UpDownDecoder",
    "add_decoder_config",
    "build_decoder",
]
