"""Whole models."""

from .base_enc_dec import BaseEncoderDecoder
from .build import META_ARCH_REGISTRY, add_config, build_model, resolve_device
from .ensemble import Ensemble
from .rnn_att_enc_dec import RnnAttEncoderDecoder
from .tden_bi_transformer import TDENBiTransformer
from .tden_captioner import TDENCaptioner
from .tden_pretrain import TDENPretrain
from .tden_retrieval import TDENRetrieval
from .transformer_enc_dec import TransformerEncoderDecoder
from .uniter_for_mm_understanding import UniterForMMUnderstanding
from .uniter_pretrain import UniterPretrain
from .uniter_retrieval import UniterRetrieval
from .x2vlm import (
    X2VLMVQA,
    X2VLMCaptioner,
    X2VLMClassifier,
    X2VLMGrounding,
    X2VLMPretrain,
    X2VLMReasoning,
    X2VLMRetrieval,
)

__all__ = [
    "META_ARCH_REGISTRY",
    "X2VLMVQA",
    "BaseEncoderDecoder",
    "Ensemble",
    "RnnAttEncoderDecoder",
    "TDENBiTransformer",
    "TDENCaptioner",
    "TDENPretrain",
    "TDENRetrieval",
    "TransformerEncoderDecoder",
    "UniterForMMUnderstanding",
    "UniterPretrain",
    "UniterRetrieval",
    "X2VLMCaptioner",
    "X2VLMClassifier",
    "X2VLMGrounding",
    "X2VLMPretrain",
    "X2VLMReasoning",
    "X2VLMRetrieval",
    "add_config",
    "build_model",
    "resolve_device",
]
