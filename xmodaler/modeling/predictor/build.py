"""Choosing the heads."""

from torch import nn

from xmodaler.config import CfgNode
from xmodaler.utils.registry import Registry

from ..selection import add_class_config, chosen_name

PREDICTOR_REGISTRY = Registry("PREDICTOR")
PREDICTOR_REGISTRY.__doc__ = "Heads that turn hidden states into logits, built as ``cls(cfg)``."


def build_predictor_with_name(cfg: CfgNode, name: str) -> nn.Module | None:
    """The head registered under ``name``, or None for ``''``."""
    return PREDICTOR_REGISTRY.get(name)(cfg) if name else None


def build_predictor(cfg: CfgNode) -> nn.Module | None:
    """The head that ``MODEL.PREDICTOR`` names, or None for ``''``."""
    return build_predictor_with_name(cfg, cfg.MODEL.PREDICTOR)


def build_v_predictor(cfg: CfgNode) -> nn.Module | None:
    """The visual head that ``MODEL.V_PREDICTOR`` names, or None for ``''``."""
    return build_predictor_with_name(cfg, cfg.MODEL.V_PREDICTOR)


def add_predictor_config(cfg: CfgNode, tmp_cfg: CfgNode) -> None:
    """Let the chosen head create its keys."""
    add_class_config(PREDICTOR_REGISTRY, chosen_name(cfg, tmp_cfg, "MODEL.PREDICTOR"), cfg)
