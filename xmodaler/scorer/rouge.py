"""ROUGE-L as a reward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.config import configurable

from .build import SCORER_REGISTRY
from .ngram_index import ranges
from .references import Hypotheses, References
from .reward import Reward, Score

if TYPE_CHECKING:
    from xmodaler.config import CfgNode


@SCORER_REGISTRY.register()
class RougeL(Reward):
    """ROUGE-L (Lin 2004) as the COCO caption toolkit computes it.

    ``(1 + b^2) P R / (R + b^2 P)``, where P and R are the longest common subsequence over the
    length of the sentence and of the reference, each the best over all references.

    Args:
        beta: b, the weight of recall over precision.
    """

    @configurable
    def __init__(self, *, beta: float = 1.2) -> None:
        self.beta = beta

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"beta": 1.2}

    def method(self) -> str:
        return "ROUGE-L"

    def bind(self, references: References) -> Score:
        def score(sentences: Hypotheses) -> np.ndarray:
            first, end = references.first[sentences.images], references.first[sentences.images + 1]
            reference = ranges(first, end - first)
            row = np.repeat(np.arange(len(first)), end - first)
            lengths = references.lengths[reference]
            common = common_subsequences(
                sentences.words[row],
                _padded(references.words, references.starts[reference], lengths),
            )
            own = np.maximum(1, sentences.lengths[row])
            precision, recall = np.zeros(len(first)), np.zeros(len(first))
            np.maximum.at(precision, row, common / own)
            np.maximum.at(recall, row, common / np.maximum(1, lengths))
            weighted = recall + self.beta**2 * precision
            product = (1 + self.beta**2) * precision * recall
            return product / np.where(weighted > 0, weighted, 1.0)

        return score


def _padded(words: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(P, longest) captions, -2 behind their ends, which equals no word of a sentence."""
    padded = np.full((len(starts), int(lengths.max(initial=1))), -2, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = words[ranges(starts, lengths)]
    return padded


def common_subsequences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Lengths (P,) of the longest common subsequences of rows of ``first`` and ``second``.

    The table of the dynamic programme is filled row by row for all pairs; along a row, carrying
    the greatest value onwards is a running maximum.

    Args:
        first: (P, T), padding that occurs in no row of ``second``.
        second: (P, U).
    """
    best = np.zeros((len(first), first.shape[1] + 1), dtype=np.int16)
    for column in second.T:
        best[:, 1:] = np.maximum(best[:, 1:], best[:, :-1] + (first == column[:, None]))
        np.maximum.accumulate(best, axis=1, out=best)
    return best[:, -1]
