"""Decoders: from picture and words so far to the next word."""

from .attribute_decoder import AttributeDecoder
from .build import DECODER_REGISTRY, add_decoder_config, build_decoder
from .causal_conv_decoder import CausalConvDecoder
from .conv_decoder import ConvDecoder
from .cosnet_decoder import COSNetDecoder
from .decoder import Decoder
from .decouple_bert_decoder import DecoupleBertDecoder
from .gru_decoder import GRUDecoder
from .meshed_decoder import MeshedDecoder
from .mplstm_decoder import MPLSTMDecoder
from .recurrent_decoder import RecurrentDecoder
from .salstm_decoder import SALSTMDecoder
from .single_cell_decoder import SingleCellDecoder
from .tdconved_decoder import TDConvEDDecoder
from .transformer_decoder import TransformerDecoder
from .updown_decoder import UpDownDecoder
from .xlan_decoder import XLANDecoder

__all__ = [
    "DECODER_REGISTRY",
    "AttributeDecoder",
    "COSNetDecoder",
    "CausalConvDecoder",
    "ConvDecoder",
    "Decoder",
    "DecoupleBertDecoder",
    "GRUDecoder",
    "MPLSTMDecoder",
    "MeshedDecoder",
    "RecurrentDecoder",
    "SALSTMDecoder",
    "SingleCellDecoder",
    "TDConvEDDecoder",
    "TransformerDecoder",
    "UpDownDecoder",
    "XLANDecoder",
    "add_decoder_config",
    "build_decoder",
]
