"""Cross-modal attention: what a recurrent decoder looks at."""

from .additive import AdditiveAttention
from .attention import CrossAttention
from .build import ATTENTION_REGISTRY, add_attention_config, build_attention
from .low_rank_bilinear import LowRankBilinearAttention
from .multihead import MultiHeadQueryAttention

__all__ = [
    "ATTENTION_REGISTRY",
    "AdditiveAttention",
    "CrossAttention",
    "LowRankBilinearAttention",
    "MultiHeadQueryAttention",
    "add_attention_config",
    "build_attention",
]
