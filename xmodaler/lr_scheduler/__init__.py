"""Learning-rate schedules by name (`LR_SCHEDULER.NAME`); all are stepped once per iteration."""

from .build import LR_SCHEDULER_REGISTRY, build_lr_scheduler
from .fix_lr import FixLR
from .multi_step_lr import MultiStepLR, WarmupMultiStepLR
from .noam_lr import NoamLR
from .step_lr import StepLR
from .warmup_lr import (
    WarmupConstant,
    WarmupCosine,
    WarmupCosineWithHardRestarts,
    WarmupLinear,
    WarmupLinearSteps,
)

__all__ = [
    "LR_SCHEDULER_REGISTRY",
    "FixLR",
    "MultiStepLR",
    "NoamLR",
    "StepLR",
    "WarmupConstant",
    "WarmupCosine",
    "WarmupCosineWithHardRestarts",
    "WarmupLinear",
    "WarmupLinearSteps",
    "WarmupMultiStepLR",
    "build_lr_scheduler",
]
