"""Running a stack of layers: which are left out in training, and what is kept for the gradient."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def kept_layers(count: int, drop: float, training: bool) -> list[bool]:
    """Which layers run (layer drop, Fan et al. 2020).

    In training every layer costs one draw of Python's generator, whatever the probability, so
    that stacks draw independently of each other's settings; in evaluation all layers run.

    Args:
        count: Number of layers.
        drop: Probability of leaving a layer out.
        training: Whether the stack is training.
    """
    if not training:
        return [True] * count
    return [random.random() >= drop for _ in range(count)]


def run_layer(layer: Callable[..., Any], *args: Any, recompute: bool = False, **kwargs: Any) -> Any:
    """Call a layer, or a part of one.

    Args:
        layer: The layer.
        *args: Its arguments.
        recompute: Keep only the inputs for the gradient and compute the rest again (activation
            checkpointing, Chen et al. 2016): less memory for a third more work.
        **kwargs: Its keyword arguments.

    Returns:
        What the layer returns.
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *args, use_reentrant=False, **kwargs)
    return layer(*args, **kwargs)
