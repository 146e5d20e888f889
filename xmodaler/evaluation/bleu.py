"""BLEU (Papineni et al. 2002) with the conventions of the COCO caption toolkit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from xmodaler.scorer import count_ngrams

__all__ = ["corpus_bleu"]

# The toolkit adds these instead of smoothing; they decide the last printed digits of degenerate
# captions, so they are part of the definition.
_TINY = 1e-15
_SMALL = 1e-9


class _Counts(NamedTuple):
    correct: list[int]  # clipped matches per order
    guessed: list[int]  # n-grams of the hypothesis per order
    length: int  # of the hypothesis
    reference_length: int  # of the reference closest in length, the shorter one in a tie


def corpus_bleu(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[Sequence[str]]],
    max_order: int = 4,
) -> tuple[list[float], list[list[float]]]:
    """Corpus BLEU-1 .. BLEU-n, and the same for every sentence alone.

    ``BLEU_n = min(1, exp(1 - r / c)) * (p_1 ... p_n)^(1/n)`` with clipped precisions p, total
    hypothesis length c and total reference length r, where each hypothesis is held against the
    reference whose length is closest to its own.

    Args:
        hypotheses: One token list per image.
        references: Per image at least one token list.
        max_order: Longest n-gram.

    Returns:
        ``max_order`` corpus scores, and per sentence a list of as many.
    """
    counts = [
        _count(words, others, max_order)
        for words, others in zip(hypotheses, references, strict=True)
    ]
    total = _Counts(
        [sum(c.correct[k] for c in counts) for k in range(max_order)],
        [sum(c.guessed[k] for c in counts) for k in range(max_order)],
        sum(c.length for c in counts),
        sum(c.reference_length for c in counts),
    )
    return _bleu(total), [_bleu(c) for c in counts]


def _count(words: Sequence[str], references: Sequence[Sequence[str]], max_order: int) -> _Counts:
    allowed = [Counter() for _ in range(max_order)]
    for reference in references:
        for most, counts in zip(allowed, count_ngrams(reference, max_order), strict=True):
            most |= counts
    own = count_ngrams(words, max_order)
    correct = [sum((mine & most).values()) for mine, most in zip(own, allowed, strict=True)]
    guessed = [max(0, len(words) - k) for k in range(max_order)]
    closest = min((abs(len(reference) - len(words)), len(reference)) for reference in references)
    return _Counts(correct, guessed, len(words), closest[1])


def _bleu(counts: _Counts) -> list[float]:
    scores, product = [], 1.0
    for k, (correct, guessed) in enumerate(zip(counts.correct, counts.guessed, strict=True), 1):
        product *= (correct + _TINY) / (guessed + _SMALL)
        scores.append(product ** (1 / k))
    ratio = (counts.length + _TINY) / (counts.reference_length + _SMALL)
    if ratio < 1:
        # exp of a huge negative number underflows to the 0 that an empty caption deserves.
        scores = [score * math.exp(1 - 1 / ratio) for score in scores]
    return scores
