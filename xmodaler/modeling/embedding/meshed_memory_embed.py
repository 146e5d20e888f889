"""Embedding of region features as the original Meshed-Memory Transformer orders it."""

from .build import EMBEDDING_REGISTRY
from .visual_embed import VisualBaseEmbedding


@EMBEDDING_REGISTRY.register()
class MeshedMemoryVisualEmbedding(VisualBaseEmbedding):
    """``norm(dropout(act(W f + W_box box)))``: dropout comes before the norm.

    Cornia et al., CVPR 2020. Arguments as for :class:`VisualBaseEmbedding`.
    """

    finishing = ("embeddings_act", "embeddings_dropout", "embeddings_norm")
