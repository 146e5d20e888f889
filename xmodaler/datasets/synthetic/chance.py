"""Where every random decision of the data set comes from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from xmodaler.datasets.synthetic.concepts import SPLITS

Option = TypeVar("Option")

# One independent stream of random numbers per purpose: a new purpose changes none of the old bytes.
STREAMS: tuple[str, ...] = (
    "scene",
    "picture",
    "captions",
    "features",
    "motion",
    "video_captions",
    "semantics",
    "questions",
    "choices",
    "twins",
    "twin_pictures",
    "translations",
    "crowds",
    "references",
    "crowd_references",
    "statements",
    "video_questions",
)


def generator(seed: int, split: str, index: int, stream: str) -> np.random.Generator:
    """The generator of one purpose for one picture: the same numbers whenever it is asked for."""
    key = (SPLITS.index(split), index, STREAMS.index(stream))
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


class Chooser(Protocol):
    """Decides between weighted options."""

    def pick(self, options: Sequence[tuple[float, Option]]) -> Option:
        """One of `(weight, option)`."""
        ...


class RandomChooser:
    """Draws an option with probability proportional to its weight."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def pick(self, options: Sequence[tuple[float, Option]]) -> Option:
        """A random option."""
        target = self.rng.random() * sum(weight for weight, _ in options)
        for weight, option in options:
            target -= weight
            if target < 0:
                return option
        return options[-1][1]

    def one_of(self, options: Sequence[Option]) -> Option:
        """A random option, all equally likely."""
        return options[int(self.rng.random() * len(options))]

    def uniform(self, low: float, high: float) -> float:
        """A number between low and high."""
        return low + (high - low) * self.rng.random()


class UsualChooser:
    """Always takes the heaviest option (the first of equals): what the grammar says most often."""

    def pick(self, options: Sequence[tuple[float, Option]]) -> Option:
        """The most usual option."""
        return max(options, key=lambda weighted: weighted[0])[1]
