"""Cross-modal attention: what a recurrent decoder looks at."""

from .additive import AdditiveAttention
from .attention import CrossAttention
from .build import (
    ATTENTION_REGISTRY,
    add_attention_config,
    build_attention,
    check_attention_is_used,
)
from .co_attention import CoAttended, CoAttention
from .low_rank_bilinear import LowRankBilinearAttention
from .memory_augmented import MemoryAugmentedQueryAttention
from .meshed import MeshedQueryAttention
from .multihead import MultiHeadQueryAttention
from .top_down import TopDownAttention

__all__ = [
    "ATTENTION_REGISTRY",
    "AdditiveAttention",
    "CoAttended",
    "CoAttention",
    "CrossAttention",
    "LowRankBilinearAttention",
    "MemoryAugmentedQueryAttention",
    "MeshedQueryAttention",
    "MultiHeadQueryAttention",
    "TopDownAttention",
    "add_attention_config",
    "build_attention",
    "check_attention_is_used",
]
