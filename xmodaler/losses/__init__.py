"""Losses."""

from .beam_reward_criterion import BeamRewardCriterion
from .build import LOSSES_REGISTRY, add_loss_config, build_losses, build_rl_losses
from .cross_entropy import CrossEntropy
from .label_smoothing import LabelSmoothing
from .reward_criterion import RewardCriterion
from .scored_rows import (
    G_SELECTED,
    SCORED_ROWS,
    U_SELECTED,
    V_SELECTED,
    ScoredRows,
    SelectedRows,
)
from .sem_comphder import SemComphderLoss

__all__ = [
    "G_SELECTED",
    "LOSSES_REGISTRY",
    "SCORED_ROWS",
    "U_SELECTED",
    "V_SELECTED",
    "BeamRewardCriterion",
    "CrossEntropy",
    "LabelSmoothing",
    "RewardCriterion",
    "ScoredRows",
    "SelectedRows",
    "SemComphderLoss",
    "add_loss_config",
    "build_losses",
    "build_rl_losses",
]
