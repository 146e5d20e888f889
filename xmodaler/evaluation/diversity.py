"""How varied and how long captions are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from xmodaler.scorer import CiderD

__all__ = ["diversity", "length_statistics", "self_cider"]

Words = Sequence[str]


def diversity(
    captions: Sequence[Sequence[Words]],
    references: Sequence[Sequence[Words]] = (),
    training: Collection[str] | None = None,
) -> dict[str, float]:
    """Figures of how much captions repeat each other, within and across images.

    Args:
        captions: Per image its captions, each a list of words.
        references: Per image the reference captions, from which :func:`self_cider` takes its
            document frequencies.
        training: Captions of the training set, tokens joined by spaces.

    Returns:
        ``distinct_1``, ``distinct_2``: different n-grams over all n-grams of all captions (Li et
        al. 2016); ``vocabulary``: different words; ``unique``: share of different captions;
        ``novel``: share of captions that are none of ``training``, where that is given.

        Where every image has at least two captions, also ``self_cider`` and ``div_1``,
        ``div_2``: different n-grams over the number of words among the captions of an image,
        mean over images (Shetty et al. 2017).
    """
    flat = [words for own in captions for words in own]
    joined = [" ".join(words) for words in flat]
    result: dict[str, float] = {}
    for order in (1, 2):
        counts = _ngrams(flat, order)
        result[f"distinct_{order}"] = len(counts) / max(1, counts.total())
    result["vocabulary"] = len(_ngrams(flat, 1))
    result["unique"] = len(set(joined)) / max(1, len(joined))
    if training is not None:
        known = set(training)
        result["novel"] = sum(text not in known for text in joined) / max(1, len(joined))
    if captions and all(len(own) > 1 for own in captions):
        for order in (1, 2):
            shares = [
                len(_ngrams(own, order)) / max(1, sum(len(words) for words in own))
                for own in captions
            ]
            result[f"div_{order}"] = float(np.mean(shares))
        result["self_cider"] = float(self_cider(captions, references or captions).mean())
    return result


def self_cider(
    captions: Sequence[Sequence[Words]], references: Sequence[Sequence[Words]]
) -> np.ndarray:
    r"""Diversity of the captions of each image (Wang & Chan 2019, section 3).

    With K the matrix of CIDEr similarities between the m captions of an image and
    :math:`\lambda_i` its eigenvalues, the score is

    .. math:: -\log_m \frac{\sqrt{\lambda_1}}{\sum_i \sqrt{\lambda_i}}

    which is 0 for captions that are all the same and 1 for captions that share nothing.

    Args:
        captions: Per image at least two captions.
        references: Per image captions that the document frequencies are counted on.

    Returns:
        ``(images,)`` float64.
    """
    cider = CiderD.from_references(references)
    scores = np.zeros(len(captions))
    for place, own in enumerate(captions):
        vectors = [_unit_vectors(cider, words) for words in own]
        columns: dict[Any, int] = {}
        for vector in vectors:
            for ngram in vector:
                columns.setdefault(ngram, len(columns))
        matrix = np.zeros((len(own), len(columns)))
        for row, vector in zip(matrix, vectors, strict=True):
            for ngram, weight in vector.items():
                row[columns[ngram]] = weight
        # The singular values are the square roots of the eigenvalues of K = M M'.
        values = np.linalg.svd(matrix, compute_uv=False) if columns else np.zeros(1)
        if values[0] > 0:
            scores[place] = max(0.0, np.log(values.sum() / values[0])) / np.log(len(own))
    return scores


def _unit_vectors(cider: CiderD, words: Words) -> dict[Any, float]:
    """tf-idf weights, scaled to length 1 within each order: their products add up to CIDEr."""
    vector = cider.vector(words)
    return {
        ngram: weight / norm
        for weights, norm in zip(vector.weights, vector.norms, strict=True)
        if norm
        for ngram, weight in weights.items()
    }


def length_statistics(
    captions: Sequence[Words], references: Sequence[Sequence[Words]] = ()
) -> dict[str, Any]:
    """Lengths of captions in words.

    Args:
        captions: One list of words each.
        references: Per image the reference captions.

    Returns:
        ``mean``, ``std``, ``min``, ``median``, ``max``; ``empty``: number of captions without a
        word; ``histogram``: number of captions by length; with references also their mean length
        ``reference_mean``.
    """
    lengths = np.array([len(words) for words in captions], dtype=np.int64)
    histogram: Mapping[int, int] = Counter(sorted(lengths.tolist()))
    result: dict[str, Any] = {
        "mean": float(lengths.mean()),
        "std": float(lengths.std()),
        "min": int(lengths.min()),
        "median": float(np.median(lengths)),
        "max": int(lengths.max()),
        "empty": int((lengths == 0).sum()),
        "histogram": {str(length): count for length, count in histogram.items()},
    }
    if references:
        result["reference_mean"] = float(np.mean([len(w) for own in references for w in own]))
    return result


def _ngrams(captions: Sequence[Words], order: int) -> Counter[tuple[str, ...]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for words in captions:
        counts.update(zip(*(words[start:] for start in range(order)), strict=False))
    return counts
