"""Choosing the cross-modal attention of recurrent decoders."""

from typing import Any

from torch import nn

from xmodaler.config import CfgNode, get_cfg
from xmodaler.utils.errors import UserError
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

    Raises:
        UserError: The name is unknown, or that attention needs two whole sequences.
    """
    name = cfg.MODEL.ATTENTION
    chosen = ATTENTION_REGISTRY.get(name)
    if not takes_vector_query(chosen):
        usable = ", ".join(
            sorted(key for key, cls in ATTENTION_REGISTRY if takes_vector_query(cls))
        )
        raise UserError(
            f"MODEL.ATTENTION is '{name}', which relates two whole sequences, but "
            f"{cfg.MODEL.DECODER} asks with one vector at a time; use one of {usable}"
        )
    return chosen(cfg, **sizes)


def takes_vector_query(attention: Any) -> bool:
    """Whether a registered attention answers the single vectors of a recurrent decoder."""
    return getattr(attention, "takes_vector_query", True)


def check_attention_is_used(cfg: CfgNode, decoder: nn.Module) -> None:
    """Refuse a ``MODEL.ATTENTION`` that a decoder has no place for.

    The value that every config has by default says nothing.

    Raises:
        UserError: The name is another one and no part of the decoder is such an attention.
    """
    name = cfg.MODEL.ATTENTION
    if name in ("", get_cfg().MODEL.ATTENTION):
        return
    chosen = ATTENTION_REGISTRY.get(name)
    if not isinstance(chosen, type) or any(isinstance(m, chosen) for m in decoder.modules()):
        return
    raise UserError(
        f"MODEL.ATTENTION is '{name}', but {type(decoder).__name__} does not choose its attention "
        "there; leave that setting out, or name a decoder that does, such as UpDownDecoder"
    )


def add_attention_config(cfg: CfgNode, tmp_cfg: CfgNode) -> None:
    """Let the chosen attention create its keys."""
    add_class_config(ATTENTION_REGISTRY, chosen_name(cfg, tmp_cfg, "MODEL.ATTENTION"), cfg)
