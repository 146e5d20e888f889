"""Choosing losses."""

from torch import nn

from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import Registry

LOSSES_REGISTRY = Registry("LOSSES")
LOSSES_REGISTRY.__doc__ = "Losses: modules built as ``cls(cfg)`` that map outputs to named scalars."

_TEACHER_FORCED = ("CrossEntropy", "LabelSmoothing")


def _names(cfg: CfgNode) -> list[str]:
    return [name for name in cfg.LOSSES.NAMES if name]


def build_losses(cfg: CfgNode) -> list[nn.Module]:
    """One loss per name in ``LOSSES.NAMES``.

    Raises:
        UserError: No loss is named, or one is unknown.
    """
    names = _names(cfg)
    if not names:
        known = ", ".join(sorted(name for name, _ in LOSSES_REGISTRY))
        raise UserError(f"LOSSES.NAMES is empty; it must name at least one loss of {known}")
    return [LOSSES_REGISTRY.get(name)(cfg) for name in names]


def build_rl_losses(cfg: CfgNode, criterion: str = "RewardCriterion") -> list[nn.Module]:
    """The loss on rewards, then the named losses that do not need ground-truth words."""
    names = [name for name in _names(cfg) if name not in _TEACHER_FORCED]
    return [LOSSES_REGISTRY.get(name)(cfg) for name in (criterion, *names)]


def add_loss_config(cfg: CfgNode, tmp_cfg: CfgNode) -> None:
    """Let the losses that ``tmp_cfg`` (or else ``cfg``) names create their keys."""
    node = tmp_cfg.get("LOSSES") or {}
    for name in node.get("NAMES", cfg.LOSSES.NAMES):
        add_config = getattr(LOSSES_REGISTRY.get(name), "add_config", None) if name else None
        if add_config is not None:
            add_config(cfg)
