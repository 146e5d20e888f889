"""Building blocks of the stages."""

from .base_attention import BaseAttention
from .create_act import get_act_layer

__all__ = ["BaseAttention", "get_act_layer"]
