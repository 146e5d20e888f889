"""Choosing embeddings of words and of visual features."""

from torch import nn

from xmodaler.config import CfgNode
from xmodaler.utils.registry import Registry

from ..selection import add_class_config, chosen_name, required_name

EMBEDDING_REGISTRY = Registry("EMBEDDING")
EMBEDDING_REGISTRY.__doc__ = "Embeddings of words and of visual features, built as ``cls(cfg)``."

_TOKEN, _VISUAL = "MODEL.TOKEN_EMBED.NAME", "MODEL.VISUAL_EMBED.NAME"


def build_embeddings(cfg: CfgNode, name: str) -> nn.Module:
    """The embedding registered under ``name``.

    Raises:
        UserError: The name is empty or unknown.
    """
    if not name:
        required_name(CfgNode(), None, "MODEL.{TOKEN,VISUAL}_EMBED.NAME", EMBEDDING_REGISTRY)
    return EMBEDDING_REGISTRY.get(name)(cfg)


def build_token_embed(cfg: CfgNode) -> nn.Module:
    """The embedding that ``MODEL.TOKEN_EMBED.NAME`` names."""
    return build_embeddings(cfg, required_name(cfg, None, _TOKEN, EMBEDDING_REGISTRY))


def build_visual_embed(cfg: CfgNode) -> nn.Module:
    """The embedding that ``MODEL.VISUAL_EMBED.NAME`` names."""
    return build_embeddings(cfg, required_name(cfg, None, _VISUAL, EMBEDDING_REGISTRY))


def add_embedding_config(cfg: CfgNode, tmp_cfg: CfgNode) -> None:
    """Let both chosen embeddings create their keys."""
    for key in (_TOKEN, _VISUAL):
        add_class_config(EMBEDDING_REGISTRY, chosen_name(cfg, tmp_cfg, key), cfg)
