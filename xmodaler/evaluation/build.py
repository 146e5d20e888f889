"""The registry of evaluators and how a config names one."""

from __future__ import annotations

import inspect
from typing import Any

from xmodaler.utils.registry import Registry

__all__ = ["EVALUATION_REGISTRY", "build_evaluation"]

#: Evaluators: classes built as ``Class(cfg, annfile, output_dir)`` or ``Class(cfg, annfile)``, with
#: ``eval(results, epoch)`` or ``eval(results)`` returning a possibly nested dict of floats.
EVALUATION_REGISTRY = Registry("EVALUATION")


def build_evaluation(cfg: Any, annfile: str, output_dir: str | None = None) -> Any:
    """Builds the evaluator that ``INFERENCE.NAME`` names.

    Args:
        cfg: The root config.
        annfile: File with the truth of the split.
        output_dir: Where result files go; None or '' writes none.

    Returns:
        The evaluator, or None when ``INFERENCE.NAME`` is empty.
    """
    if not cfg.INFERENCE.NAME:
        return None
    evaluator = EVALUATION_REGISTRY.get(cfg.INFERENCE.NAME)
    arguments = (cfg, annfile, output_dir)
    return evaluator(*arguments[: 3 if _takes_three(evaluator) else 2])


def _takes_three(evaluator: Any) -> bool:
    # The documented shape of a user's evaluator has two arguments, the code's own has three. That
    # of a configurable class is the shape of its from_config.
    try:
        inspect.signature(getattr(evaluator, "from_config", evaluator)).bind(None, None, None)
    except TypeError:
        return False
    return True
