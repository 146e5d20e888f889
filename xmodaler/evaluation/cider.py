"""CIDEr as the COCO caption toolkit prints it."""

from __future__ import annotations

from collections.abc import Sequence

from xmodaler.scorer import CiderD

__all__ = ["corpus_cider"]


def corpus_cider(
    hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]
) -> tuple[float, list[float]]:
    """CIDEr of a set of captions and of each of them.

    What the toolkit calls CIDEr is CIDEr-D of Vedantam et al. (2015): clipped, with the Gaussian
    length penalty (sigma 6), without stemming, times 10; see :class:`xmodaler.scorer.CiderD`. The
    document frequencies are those of the references that are scored, so the number depends on the
    set of images: with a single image every weight is ``log 1 = 0`` and so is the score.

    Args:
        hypotheses: One token list per image.
        references: Per image at least one token list.

    Returns:
        The mean, and one score per image.
    """
    scores = CiderD.from_references(references).scores(hypotheses, references)
    return float(scores.mean()), scores.tolist()
