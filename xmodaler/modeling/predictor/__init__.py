"""Predictors: hidden states become logits."""

from .base_predictor import BasePredictor
from .bert_is_matched_predictor import BertIsMatchedPredictor
from .bert_prediction_head import BertPredictionHead
from .bert_visual_feature_regression_head import BertVisualFeatureRegressionHead
from .bert_visual_prediction_head import BertVisualPredictionHead
from .build import (
    PREDICTOR_REGISTRY,
    add_predictor_config,
    build_predictor,
    build_predictor_with_name,
    build_v_predictor,
)
from .multimodal_predictor import MultiModalPredictor
from .multimodal_similarity import MultiModalSimilarity
from .single_stream_mm_predictor import SingleStreamMultiModalPredictor
from .single_stream_mm_similarity import SingleStreamMultiModalSimilarity

__all__ = [
    "PREDICTOR_REGISTRY",
    "BasePredictor",
    "BertIsMatchedPredictor",
    "BertPredictionHead",
    "BertVisualFeatureRegressionHead",
    "BertVisualPredictionHead",
    "MultiModalPredictor",
    "MultiModalSimilarity",
    "SingleStreamMultiModalPredictor",
    "SingleStreamMultiModalSimilarity",
    "add_predictor_config",
    "build_predictor",
    "build_predictor_with_name",
    "build_v_predictor",
]
