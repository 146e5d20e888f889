"""Building blocks of the stages."""

from .base_attention import BaseAttention
from .create_act import get_act_layer
from .tdconved_layers import ShiftedConvLayer, SoftAttention, TemporalDeformableLayer

__all__ = [
    "BaseAttention",
    "ShiftedConvLayer",
    "SoftAttention",
    "TemporalDeformableLayer",
    "get_act_layer",
]
