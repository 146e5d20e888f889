"""Attention of one new word per hypothesis to all words stored for its image."""

from torch import Tensor, nn

from .dot_product import attend, split_heads
from .few_rows import StepWeights, linear
from .kv_cache import Cache, store

Projections = tuple[nn.Linear, nn.Linear, nn.Linear]


def attend_stored(
    projections: Projections,
    num_heads: int,
    x: Tensor,
    mask: Tensor | None,
    cache: Cache,
    layer: int,
    images: int,
    weights: StepWeights | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Store the keys and values of this step's words, then attend.

    Args:
        projections: Of queries, keys and values.
        num_heads: Heads.
        x: (R, D), the words of this step.
        mask: (B, 1, R / B, slots) additive, or None.
        cache: Receives this step's keys and values.
        layer: Number of the layer in the cache.
        images: B.
        weights: Copies of weights made for decoding.
        dropout: Probability of dropping an attention weight.

    Returns:
        The context (R, D).
    """
    query, key, value = (
        split_heads(linear(project, x, weights).unflatten(0, (images, -1)), num_heads)
        for project in projections
    )
    context, _ = attend(query, *store(cache, layer, key, value), mask, dropout)
    return context.flatten(0, 1)
