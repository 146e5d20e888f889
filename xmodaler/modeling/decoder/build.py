"""Choosing the decoder."""

from torch import nn

from xmodaler.config import CfgNode
from xmodaler.utils.registry import Registry

from ..attention import check_attention_is_used
from ..selection import add_class_config, chosen_name

DECODER_REGISTRY = Registry("DECODER")
DECODER_REGISTRY.__doc__ = "Decoders of sentences, built as ``cls(cfg)``."


def build_decoder(cfg: CfgNode) -> nn.Module | None:
    """The decoder that ``MODEL.DECODER`` names, or None for ``''``.

    Raises:
        UserError: The decoder is unknown, or cannot use what ``MODEL.ATTENTION`` names.
    """
    if not cfg.MODEL.DECODER:
        return None
    decoder = DECODER_REGISTRY.get(cfg.MODEL.DECODER)(cfg)
    check_attention_is_used(cfg, decoder)
    return decoder


def add_decoder_config(cfg: CfgNode, tmp_cfg: CfgNode) -> None:
    """Let the chosen decoder create its keys."""
    add_class_config(DECODER_REGISTRY, chosen_name(cfg, tmp_cfg, "MODEL.DECODER"), cfg)
