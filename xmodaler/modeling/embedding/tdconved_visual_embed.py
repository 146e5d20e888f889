"""Embedding of frame features with weight normalisation."""

from typing import Any

from torch import nn

from xmodaler.config import CfgNode, configurable

from ..layers.weight_norm import WeightNormLinear
from .build import EMBEDDING_REGISTRY
from .visual_embed import VisualBaseEmbedding, visual_layers


@EMBEDDING_REGISTRY.register()
class TDConvEDVisualBaseEmbedding(VisualBaseEmbedding):
    """As :class:`VisualBaseEmbedding`, where USE_NORM asks for weight norm instead of LayerNorm.

    Args:
        in_dim: Width of the features.
        out_dim: Width of the embedding.
        embeddings_weightnorm: Whether the weight is normed.
        **kwargs: The optional layers of :class:`VisualBaseEmbedding`.
    """

    @configurable
    def __init__(
        self,
        *,
        in_dim: int,
        out_dim: int,
        embeddings_weightnorm: bool = True,
        **kwargs: nn.Module | None,
    ) -> None:
        super().__init__(in_dim=in_dim, out_dim=out_dim, **kwargs)
        if embeddings_weightnorm:
            self.embeddings = WeightNormLinear(in_dim, out_dim)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.VISUAL_EMBED
        layers = visual_layers(cfg)
        layers.pop("embeddings_norm", None)
        sizes = {"in_dim": node.IN_DIM, "out_dim": node.OUT_DIM}
        return {**sizes, "embeddings_weightnorm": node.USE_NORM, **layers}
