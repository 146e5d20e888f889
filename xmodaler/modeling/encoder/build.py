"""Choosing the encoder."""

from torch import nn

from xmodaler.config import CfgNode
from xmodaler.utils.registry import Registry

from ..selection import add_class_config, chosen_name

ENCODER_REGISTRY = Registry("ENCODER")
ENCODER_REGISTRY.__doc__ = "Encoders of pictures and words, built as ``cls(cfg)``."


def build_encoder(cfg: CfgNode) -> nn.Module | None:
    """The encoder that ``MODEL.ENCODER`` names, or None for ``''``."""
    return ENCODER_REGISTRY.get(cfg.MODEL.ENCODER)(cfg) if cfg.MODEL.ENCODER else None


def add_encoder_config(cfg: CfgNode, tmp_cfg: CfgNode) -> None:
    """Let the chosen encoder, and one that it contains, create their keys."""
    for key in ("MODEL.ENCODER", "MODEL.TAGS.ENCODER"):
        add_class_config(ENCODER_REGISTRY, chosen_name(cfg, tmp_cfg, key), cfg)
