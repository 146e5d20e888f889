"""Choosing the cross-modal attention of recurrent decoders."""

from typing import Any

from torch import nn

from xmodaler.config import CfgNode
from xmodaler.utils.registry import Registry

from ..selection import add_class_config, chosen_name

ATTENTION_REGISTRY = Registry("ATTENTION")
ATTENTION_REGISTRY.__doc__ = """Cross-modal attentions of recurrent decoders.

Built as ``cls(cfg, query_dim=..., memory_dim=..., embed_dim=..., dropout=...)``; see
:class:`~xmodaler.modeling.attention.attention.CrossAttention` for what they must offer.
"""


def build_attention(cfg: CfgNode, **sizes: Any) -> nn.Module:
    """The attention that ``MODEL.ATTENTION`` names.

    Args:
        cfg: The config.
        **sizes: ``query_dim``, ``memory_dim``, ``embed_dim`` and ``dropout`` of the decoder.
    """
    return ATTENTION_REGISTRY.get(cfg.MODEL.ATTENTION)(cfg, **sizes)


def add_attention_config(cfg: CfgNode, tmp_cfg: CfgNode) -> None:
    """Let the chosen attention create its keys."""
    add_class_config(ATTENTION_REGISTRY, chosen_name(cfg, tmp_cfg, "MODEL.ATTENTION"), cfg)
