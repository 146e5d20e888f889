"""Everything that happens around the training steps."""

from ..train_loop import HookBase
from .basic import (
    CallbackHook,
    IterationTimer,
    LRScheduler,
    ModelWeightsManipulating,
    ScheduledSampling,
)
from .checkpointing import BestCheckpointer, PeriodicCheckpointer
from .diagnostics import AutogradProfiler, PreciseBN
from .evaluation import EvalHook
from .writing import PeriodicWriter, ProgressBar

__all__ = [
    "AutogradProfiler",
    "BestCheckpointer",
    "CallbackHook",
    "EvalHook",
    "HookBase",
    "IterationTimer",
    "LRScheduler",
    "ModelWeightsManipulating",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "ProgressBar",
    "ScheduledSampling",
]
