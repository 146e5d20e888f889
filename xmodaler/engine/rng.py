"""Keeping the random numbers of training apart from those of everything around it."""

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from xmodaler.checkpoint import rng_state, set_rng_state


@contextmanager
def isolated_rng(seed: int | None = None) -> Iterator[None]:
    """Run a block without moving the generators the training draws from.

    Args:
        seed: Seed the CPU generators with it inside the block; None lets them continue.
    """
    state = rng_state()
    try:
        if seed is not None:
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.default_generator.manual_seed(seed)
        yield
    finally:
        set_rng_state(state)


def stable_seed(*parts: int | str) -> int:
    """A 63-bit number that depends on ``parts`` alone, on every machine and in every process."""
    digest = hashlib.sha256("/".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1
