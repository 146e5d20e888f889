"""Training and evaluation: trainers, hooks, and the processes they run in."""

from xmodaler.utils.arguments import default_argument_parser

from . import hooks
from .build import ENGINE_REGISTRY, build_engine
from .default_trainer import DefaultTrainer
from .defaults import default_setup
from .ema import ModelEma
from .ensembler import Ensembler
from .hard_negatives_trainer import SingleStreamRetrievalTrainerHardNegatives
from .hooks import (
    AutogradProfiler,
    BestCheckpointer,
    CallbackHook,
    EvalHook,
    IterationTimer,
    LRScheduler,
    ModelWeightsManipulating,
    PeriodicCheckpointer,
    PeriodicWriter,
    PreciseBN,
    ProgressBar,
    ScheduledSampling,
)
from .launch import DEFAULT_TIMEOUT, launch
from .preemption import TrainingInterrupted
from .retrieval_trainer import RetrievalTrainer
from .rl_beam_trainer import RLBeamTrainer
from .rl_mean_trainer import RLMeanTrainer
from .rl_trainer import RLTrainer
from .single_stream_retrieval_trainer import SingleStreamRetrievalTrainer
from .tden_pretrainer import TDENPretrainer
from .train_loop import HookBase, TrainerBase
from .vcr_trainer import VCRTrainer
from .writers import default_writers
from .x2vlm_pretrainer import X2VLMPretrainer

# The spelling of the X-modaler documentation.
PeriodicCheckpoint = PeriodicCheckpointer

__all__ = [
    "DEFAULT_TIMEOUT",
    "ENGINE_REGISTRY",
    "AutogradProfiler",
    "BestCheckpointer",
    "CallbackHook",
    "DefaultTrainer",
    "Ensembler",
    "EvalHook",
    "HookBase",
    "IterationTimer",
    "LRScheduler",
    "ModelEma",
    "ModelWeightsManipulating",
    "PeriodicCheckpoint",
    "PeriodicCheckpointer",
    "PeriodicWriter",
    "PreciseBN",
    "ProgressBar",
    "RLBeamTrainer",
    "RLMeanTrainer",
    "RLTrainer",
    "RetrievalTrainer",
    "ScheduledSampling",
    "SingleStreamRetrievalTrainer",
    "SingleStreamRetrievalTrainerHardNegatives",
    "TDENPretrainer",
    "TrainerBase",
    "TrainingInterrupted",
    "VCRTrainer",
    "X2VLMPretrainer",
    "build_engine",
    "default_argument_parser",
    "default_setup",
    "default_writers",
    "hooks",
    "launch",
]
