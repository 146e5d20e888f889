"""Batches and numbers of training on rewards."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import kfg

# What belongs to the captions of a training batch and has no part in generating new ones.
_CAPTIONS = (
    kfg.G_TOKENS_IDS,
    kfg.G_TARGET_IDS,
    kfg.G_TOKENS_TYPE,
    kfg.TOKENS_MASKS,
    kfg.SS_PROB,
)


def without_captions(data: dict[str, Any]) -> dict[str, Any]:
    """The visual side of a training batch, one row per image.

    Where every caption of an image has semantic words of its own (COS-Net changes some at random
    for each), those of the first are taken.
    """
    images = len(data[kfg.IDS])
    batch = {}
    for key, value in data.items():
        if key in _CAPTIONS:
            continue
        if key.startswith("SEMANTICS_") and isinstance(value, Tensor) and len(value) > images:
            value = value[:: len(value) // images]
        batch[key] = value
    return batch


def sample_scalars(
    words: Tensor, log_probs: Tensor, rewards: np.ndarray, baseline: np.ndarray, eos_id: int
) -> dict[str, Tensor | float]:
    """What to log about generated sentences.

    Args:
        words: (R, T).
        log_probs: (R, T).
        rewards: (B, S), R = B * S.
        baseline: (B, S) or (B, 1).
        eos_id: The end word.

    Returns:
        ``reward``, its standard deviation ``reward_std`` over the batch and ``reward_spread``
        among the sentences of an image, ``baseline``; ``length`` in words, the end not counted;
        ``unfinished``, the share of sentences that never ended; ``entropy`` of the next word in
        nats, estimated by the mean of ``-log p`` of the words drawn.
    """
    ends = words == eos_id
    before = ends.cumsum(dim=1) - ends.long() == 0
    counted = -torch.where(before, log_probs.detach().float(), 0.0)
    return {
        "reward": float(rewards.mean()),
        "reward_std": float(rewards.std()),
        "reward_spread": float(rewards.std(axis=1).mean()),
        "baseline": float(baseline.mean()),
        "length": (before & ~ends).sum(dim=1).float().mean(),
        "unfinished": 1.0 - ends.any(dim=1).float().mean(),
        "entropy": counted.sum() / before.sum(),
    }
