"""BLEU (Papineni et al. 2002) with the conventions of the COCO caption toolkit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from xmodaler.scorer import count_ngrams

__all__ = ["bleu_counts", "bleu_from_counts", "corpus_bleu"]

# The toolkit adds these instead of smoothing; they decide the last printed digits of degenerate
# captions, so they are part of the definition.
_TINY = 1e-15
_SMALL = 1e-9


def corpus_bleu(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    max_order: int = 4,
) -> tuple[list[float], list[list[float]]]:
    """Corpus BLEU-1 .. BLEU-n, and the same for every sentence alone.

    Args:
        hypotheses: One token list per image.
        references: Per image at least one token list.
        max_order: Longest n-gram.

    Returns:
        ``max_order`` corpus scores, and per sentence a list of as many.
    """
    counts = bleu_counts(hypotheses, references, max_order)
    return bleu_from_counts(counts.sum(axis=0)).tolist(), bleu_from_counts(counts).tolist()


def bleu_counts(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    max_order: int = 4,
) -> np.ndarray:
    """What BLEU is computed from, for every sentence; the sums of rows give the BLEU of a set.

    Args:
        hypotheses: N token lists.
        references: Per hypothesis at least one token list.
        max_order: Longest n-gram, n.

    Returns:
        ``(N, 2n + 2)`` int64: clipped matches per order, n-grams of the hypothesis per order, its
        length, and the length of the reference closest in length, the shorter one in a tie.
    """
    rows = [
        _count(words, others, max_order)
        for words, others in zip(hypotheses, references, strict=True)
    ]
    return np.array(rows, dtype=np.int64).reshape(len(rows), 2 * max_order + 2)


def bleu_from_counts(counts: np.ndarray) -> np.ndarray:
    """BLEU-1 .. BLEU-n of sets of captions.

    ``BLEU_n = min(1, exp(1 - r / c)) * (p_1 ... p_n)^(1/n)`` with clipped precisions p, total
    hypothesis length c and total reference length r, where each hypothesis is held against the
    reference whose length is closest to its own.

    Args:
        counts: ``(..., 2n + 2)``, sums of rows of :func:`bleu_counts`.

    Returns:
        ``(..., n)`` float64.
    """
    counts = np.asarray(counts, dtype=np.float64)
    orders = counts.shape[-1] // 2 - 1
    correct, guessed = counts[..., :orders], counts[..., orders : 2 * orders]
    precisions = np.cumprod((correct + _TINY) / (guessed + _SMALL), axis=-1)
    scores = precisions ** (1 / np.arange(1, orders + 1))
    ratio = (counts[..., -2] + _TINY) / (counts[..., -1] + _SMALL)
    # exp of a huge negative number underflows to the 0 that an empty caption deserves.
    return scores * np.exp(1 - 1 / np.minimum(ratio, 1.0))[..., None]


def _count(words: Sequence[str], references: Sequence[Sequence[str]], max_order: int) -> list[int]:
    allowed = [Counter() for _ in range(max_order)]
    for reference in references:
        for most, counts in zip(allowed, count_ngrams(reference, max_order), strict=True):
            most |= counts
    own = count_ngrams(words, max_order)
    correct = [sum((mine & most).values()) for mine, most in zip(own, allowed, strict=True)]
    guessed = [max(0, len(words) - k) for k in range(max_order)]
    closest = min((abs(len(reference) - len(words)), len(reference)) for reference in references)
    return [*correct, *guessed, len(words), closest[1]]
