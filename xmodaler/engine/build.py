"""The registry of trainers and the function that builds the one a config names."""

from typing import TYPE_CHECKING

from xmodaler.utils.registry import Registry

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

    from .train_loop import TrainerBase

ENGINE_REGISTRY = Registry("ENGINE")


def build_engine(cfg: "CfgNode") -> "TrainerBase":
    """The trainer named by ``cfg.ENGINE.NAME``, built from ``cfg``."""
    return ENGINE_REGISTRY.get(cfg.ENGINE.NAME)(cfg)
