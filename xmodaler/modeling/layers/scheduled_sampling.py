"""Feeding a model its own words in training (Bengio et al. 2015)."""

from typing import Any

import torch
from torch import Tensor

from xmodaler.config import kfg


def sampling_probability(batched_inputs: dict[str, Any], training: bool) -> float:
    """SS_PROB of the batch; 0 outside training and where the batch has none."""
    return float(batched_inputs.get(kfg.SS_PROB, 0.0)) if training else 0.0


def choose_positions(rows: int, length: int, probability: float) -> Tensor:
    """Which input words are replaced: each with the given probability, never the first.

    The draw is made on the host, so that no step has to wait to know which rows it concerns.

    Returns:
        (rows, length) bool on the CPU.
    """
    chosen = torch.rand(rows, length) < probability
    chosen[:, 0] = False
    return chosen


def draw_words(logits: Tensor) -> Tensor:
    """One word per row (...) int64 from the softmax of logits (..., V)."""
    probabilities = torch.softmax(logits.float(), dim=-1)
    flat = probabilities.reshape(-1, probabilities.shape[-1])
    return torch.multinomial(flat, 1).view(logits.shape[:-1])
