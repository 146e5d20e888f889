"""Embeddings: words and pictures become vectors."""

from .build import (
    EMBEDDING_REGISTRY,
    add_embedding_config,
    build_embeddings,
    build_token_embed,
    build_visual_embed,
)
from .frame_embed import FrameEmbedding
from .meshed_memory_embed import MeshedMemoryVisualEmbedding
from .tdconved_visual_embed import TDConvEDVisualBaseEmbedding
from .timm_embed import TimmEmbedding
from .token_embed import TokenBaseEmbedding
from .vision_tower_embed import VisionTowerEmbedding
from .visual_embed import VisualBaseEmbedding, VisualIdentityEmbedding
from .visual_grid_embed import VisualGridEmbedding

__all__ = [
    "EMBEDDING_REGISTRY",
    "FrameEmbedding",
    "MeshedMemoryVisualEmbedding",
    "TDConvEDVisualBaseEmbedding",
    "TimmEmbedding",
    "TokenBaseEmbedding",
    "VisionTowerEmbedding",
    "VisualBaseEmbedding",
    "VisualGridEmbedding",
    "VisualIdentityEmbedding",
    "add_embedding_config",
    "build_embeddings",
    "build_token_embed",
    "build_visual_embed",
]
