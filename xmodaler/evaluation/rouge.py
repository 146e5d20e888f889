"""ROUGE-L (Lin 2004) with the conventions of the COCO caption toolkit."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["longest_common_subsequence", "rouge_l"]

_BETA = 1.2  # weight of recall over precision


def rouge_l(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """ROUGE-L of one caption: ``(1 + b^2) P R / (R + b^2 P)`` with b = 1.2.

    P and R are the longest common subsequence over the length of the caption and of the reference,
    each the best over all references, not necessarily of the same one.

    Args:
        hypothesis: Tokens of the caption.
        references: At least one token list.
    """
    # The toolkit splits text at spaces, so that an empty sentence has one token, the empty string.
    own = list(hypothesis) or [""]
    others = [list(reference) or [""] for reference in references]
    common = [longest_common_subsequence(own, other) for other in others]
    precision = max(common) / len(own)
    recall = max(length / len(other) for length, other in zip(common, others, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + _BETA**2) * precision * recall / (recall + _BETA**2 * precision)


def longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence.

    Bit-parallel dynamic programming (Hyyro 2004): bit i of ``row`` is 0 where the table's row
    increases at column i, so one row costs a few operations on one integer.
    """
    places: dict[str, int] = {}
    for index, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << index
    full = (1 << len(first)) - 1
    row = full
    for word in second:
        hits = row & places.get(word, 0)
        row = ((row + hits) | (row - hits)) & full
    return len(first) - row.bit_count()
