"""Decode strategies: how sentences are drawn from a model, one word after another."""

from .beam_searcher import BeamSearcher
from .build import DECODE_STRATEGY_REGISTRY, build_beam_searcher, build_greedy_decoder
from .decode_strategy import DecodeStrategy
from .ensemble_beam_searcher import EnsembleBeamSearcher, ModelAverage
from .greedy_decoder import GreedyDecoder
from .refilling_beam_searcher import RefillingBeamSearcher

__all__ = [
    "DECODE_STRATEGY_REGISTRY",
    "BeamSearcher",
    "DecodeStrategy",
    "EnsembleBeamSearcher",
    "GreedyDecoder",
    "ModelAverage",
    "RefillingBeamSearcher",
    "build_beam_searcher",
    "build_greedy_decoder",
]
