"""The layers of TDConvED under the module name of X-modaler."""

from .causal_conv import ShiftedConvLayer
from .soft_attention import SoftAttention
from .temporal_deform import TemporalDeformableBlock, TemporalDeformableLayer

__all__ = [
    "ShiftedConvLayer",
    "SoftAttention",
    "TemporalDeformableBlock",
    "TemporalDeformableLayer",
]
