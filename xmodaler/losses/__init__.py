"""Losses."""

from .answer_likelihood import AnswerLikelihood
from .batch_triplet import BatchTriplet
from .bce_with_logits import BCEWithLogits
from .beam_reward_criterion import BeamRewardCriterion
from .box_regression import BoxRegression
from .build import LOSSES_REGISTRY, add_loss_config, build_losses, build_rl_losses
from .cross_entropy import CrossEntropy
from .image_text_contrastive import ImageTextContrastive
from .image_text_matching import ImageTextMatching
from .label_smoothing import LabelSmoothing
from .pretrain_losses import PretrainLosses
from .reward_criterion import RewardCriterion
from .scored_rows import (
    G_SELECTED,
    R_SELECTED,
    SCORED_ROWS,
    U_SELECTED,
    V_SELECTED,
    ScoredRows,
    SelectedRows,
)
from .sem_comphder import SemComphderLoss
from .triplet import Triplet

__all__ = [
    "G_SELECTED",
    "LOSSES_REGISTRY",
    "R_SELECTED",
    "SCORED_ROWS",
    "U_SELECTED",
    "V_SELECTED",
    "AnswerLikelihood",
    "BCEWithLogits",
    "BatchTriplet",
    "BeamRewardCriterion",
    "BoxRegression",
    "CrossEntropy",
    "ImageTextContrastive",
    "ImageTextMatching",
    "LabelSmoothing",
    "PretrainLosses",
    "RewardCriterion",
    "ScoredRows",
    "SelectedRows",
    "SemComphderLoss",
    "Triplet",
    "add_loss_config",
    "build_losses",
    "build_rl_losses",
]
