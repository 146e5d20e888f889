"""Losses."""

from .beam_reward_criterion import BeamRewardCriterion
from .build import LOSSES_REGISTRY, add_loss_config, build_losses, build_rl_losses
from .cross_entropy import CrossEntropy
from .label_smoothing import LabelSmoothing
from .reward_criterion import RewardCriterion
from .scored_rows import SCORED_ROWS, ScoredRows
from .sem_comphder import SemComphderLoss

__all__ = [
    "LOSSES_REGISTRY",
    "SCORED_ROWS",
    "BeamRewardCriterion",
    "CrossEntropy",
    "LabelSmoothing",
    "RewardCriterion",
    "ScoredRows",
    "SemComphderLoss",
    "add_loss_config",
    "build_losses",
    "build_rl_losses",
]
