"""Choosing how sentences are generated."""

from typing import TYPE_CHECKING

from xmodaler.utils.registry import Registry

if TYPE_CHECKING:
    from xmodaler.config import CfgNode
    from xmodaler.modeling.decode_strategy.decode_strategy import DecodeStrategy

DECODE_STRATEGY_REGISTRY = Registry("DECODE_STRATEGY")
DECODE_STRATEGY_REGISTRY.__doc__ = "Decode strategies: classes built as ``cls(cfg)``."


def build_beam_searcher(cfg: "CfgNode") -> "DecodeStrategy":
    """The strategy that ``DECODE_STRATEGY.NAME`` names, used with ``use_beam_search=True``."""
    return DECODE_STRATEGY_REGISTRY.get(cfg.DECODE_STRATEGY.NAME)(cfg)


def build_greedy_decoder(cfg: "CfgNode") -> "DecodeStrategy":
    """The greedy decoder, which also samples; used with ``use_beam_search=False``."""
    return DECODE_STRATEGY_REGISTRY.get("GreedyDecoder")(cfg)
