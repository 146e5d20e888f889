"""Predictors: hidden states become logits."""

from .base_predictor import BasePredictor
from .build import (
    PREDICTOR_REGISTRY,
    add_predictor_config,
    build_predictor,
    build_predictor_with_name,
    build_v_predictor,
)

__all__ = [
    "PREDICTOR_REGISTRY",
    "BasePredictor",
    "add_predictor_config",
    "build_predictor",
    "build_predictor_with_name",
    "build_v_predictor",
]
