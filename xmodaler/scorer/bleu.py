"""Sentence BLEU as a reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.config import configurable

from .build import SCORER_REGISTRY
from .references import Hypotheses, References
from .reward import Reward, Score

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

# What the COCO caption toolkit adds in place of smoothing.
_TINY = 1e-15
_SMALL = 1e-9


@SCORER_REGISTRY.register()
class Bleu4(Reward):
    """BLEU (Papineni et al. 2002) of every sentence alone, as the COCO caption toolkit counts it.

    ``min(1, exp(1 - r / c)) * (p_1 ... p_n)^(1/n)`` with clipped precisions p, length c of the
    sentence and r of the reference whose length is closest, the shorter one in a tie. There is no
    smoothing: a sentence that shares no n-gram of the greatest length gets next to nothing.

    Args:
        n: Longest n-gram.
    """

    @configurable
    def __init__(self, *, n: int = 4) -> None:
        self.n = n

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"n": 4}

    def method(self) -> str:
        return f"BLEU-{self.n}"

    def bind(self, references: References) -> Score:
        index, lengths = references.ngrams(self.n), references.lengths

        def score(sentences: Hypotheses) -> np.ndarray:
            found = sentences.matches(index)
            rows = len(sentences.lengths)
            # The most that any reference has of each n-gram; pairs of one n-gram are adjacent.
            allowed = np.zeros(found.count.shape)
            np.maximum.at(allowed, found.pair_ngram, found.pair_count)
            clipped = np.minimum(found.count, allowed) / found.count
            group = found.row * self.n + found.order
            correct = np.bincount(group, clipped, minlength=rows * self.n).reshape(rows, -1)
            guessed = np.maximum(0, sentences.lengths[:, None] - np.arange(self.n))
            # Counts are whole; thirds of three do not quite add up to one.
            precision = (np.rint(correct) + _TINY) / (guessed + _SMALL)
            closest = _closest_length(
                found.first_reference, found.num_references, sentences, lengths
            )
            ratio = (sentences.lengths + _TINY) / (closest + _SMALL)
            brevity = np.where(ratio < 1, np.exp(1 - 1 / np.minimum(ratio, 1.0)), 1.0)
            return precision.prod(axis=1) ** (1 / self.n) * brevity

        return score


def _closest_length(
    first: np.ndarray, count: np.ndarray, sentences: Hypotheses, lengths: np.ndarray
) -> np.ndarray:
    """(R,) length of the reference closest in length, the shorter one in a tie."""
    place = np.arange(int(count.max(initial=1)))
    real = place < count[:, None]
    others = lengths[np.where(real, first[:, None] + place, 0)]
    # Twice the difference, and one more for the longer of two.
    rank = 2 * np.abs(others - sentences.lengths[:, None]) + (others > sentences.lengths[:, None])
    best = np.where(real, rank, np.iinfo(np.int64).max).argmin(axis=1)
    return others[np.arange(len(others)), best]
