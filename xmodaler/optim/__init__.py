"""Optimizers by name (`SOLVER.NAME`), their parameter groups and gradient clipping."""

from .adagrad import Adagrad
from .adam import Adam, AdamW
from .adamax import Adamax
from .bert_adam import BertAdam
from .build import (
    SOLVER_REGISTRY,
    build_optimizer,
    build_optimizer_params,
    get_default_optimizer_params,
)
from .clipping import GradientClipper, clip_gradients, maybe_add_gradient_clipping
from .fine_tuned_adam import FineTunedAdamW
from .named_groups import named_optimizer_params
from .radam import PlainRAdam, RAdam
from .rmsprop import RMSprop
from .sgd import SGD
from .step_in_backward import StepInBackward, build_step_in_backward

__all__ = [
    "SGD",
    "SOLVER_REGISTRY",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "BertAdam",
    "FineTunedAdamW",
    "GradientClipper",
    "PlainRAdam",
    "RAdam",
    "RMSprop",
    "StepInBackward",
    "build_optimizer",
    "build_optimizer_params",
    "build_step_in_backward",
    "clip_gradients",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
    "named_optimizer_params",
]
