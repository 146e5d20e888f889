"""Choosing rewards."""

from typing import TYPE_CHECKING, Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import Registry

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

SCORER_REGISTRY = Registry("SCORER")
SCORER_REGISTRY.__doc__ = (
    "Rewards: the wrappers that SCORER.NAME chooses from, and the metrics of SCORER.TYPES, all "
    "built as ``cls(cfg)``."
)


def build_scorer(cfg: "CfgNode") -> Any:
    """The reward that ``SCORER.NAME`` names.

    Raises:
        UserError: No reward is named, or an unknown one.
    """
    if not cfg.SCORER.NAME:
        raise UserError(
            f"SCORER.NAME is empty, but ENGINE.NAME {cfg.ENGINE.NAME} trains on a reward; name a "
            "scorer such as BaseScorer"
        )
    return SCORER_REGISTRY.get(cfg.SCORER.NAME)(cfg)
