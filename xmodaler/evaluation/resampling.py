"""How far scores depend on the chance of which images were captioned: intervals and tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from xmodaler.evaluation.bleu import bleu_from_counts
from xmodaler.evaluation.caption_metrics import MetricColumns

__all__ = ["Comparison", "ScoreSums", "bootstrap", "compare", "interval"]

# Entries of the matrices that are in memory at once.
_MOST_ENTRIES = 1 << 22
_BLEU = tuple(f"Bleu_{order}" for order in (1, 2, 3, 4))
_BLEU_COUNTS = 10


class ScoreSums:
    """Numbers per image whose sums over any set of images give every score of that set.

    BLEU follows from sums of its counts; ROUGE-L, CIDEr and SPICE are means, where CIDEr's
    document frequencies stay those of all references. METEOR of a corpus comes from statistics
    that its program keeps to itself: it moves as the mean of the images' scores does.

    Args:
        measured: The scores of N images.
        names: Those of interest; by default all.

    Attributes:
        names: The M scores.
        rows: ``(N, k)`` float64.
    """

    def __init__(self, measured: MetricColumns, names: Sequence[str] | None = None) -> None:
        wanted = list(measured.corpus if names is None else names)
        bleu = [name for name in wanted if name in _BLEU]
        means = [name for name in wanted if name not in _BLEU]
        columns = [measured.per_image[name][:, None] for name in means]
        if bleu:
            columns.insert(0, measured.bleu_counts)
        self.names = [*bleu, *means]
        self.rows = np.concatenate(columns, axis=1, dtype=np.float64)
        self._orders = [_BLEU.index(name) for name in bleu]
        self._offsets = np.array(
            [
                measured.corpus[name] - measured.per_image[name].mean() if name == "METEOR" else 0.0
                for name in means
            ]
        )

    def scores(self, sums: np.ndarray, moved: bool = True) -> np.ndarray:
        """Scores of sets as large as the whole.

        Args:
            sums: ``(..., k)`` sums of rows.
            moved: Give METEOR where the program puts it; False gives the mean of the images.

        Returns:
            ``(..., M)`` float64.
        """
        offsets = self._offsets if moved else 0.0
        if not self._orders:
            return sums / len(self.rows) + offsets
        means = sums[..., _BLEU_COUNTS:] / len(self.rows) + offsets
        bleu = bleu_from_counts(sums[..., :_BLEU_COUNTS])[..., self._orders]
        return np.concatenate([bleu, means], axis=-1)


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same images, by one score.

    Attributes:
        difference: Score of the first less that of the second.
        low: Lower end of the bootstrap interval of the difference.
        high: Upper end.
        p_bootstrap: Two-sided p-value of the paired bootstrap (Koehn 2004).
        p_randomization: Two-sided p-value of approximate randomisation (Riezler & Maxwell 2005).
    """

    difference: float
    low: float
    high: float
    p_bootstrap: float
    p_randomization: float


def bootstrap(sums: ScoreSums, samples: int, seed: int) -> np.ndarray:
    """Scores of sets of N images drawn from the N images with replacement.

    The same seed draws the same images, so that results of several systems are paired.

    Args:
        sums: Of the N images.
        samples: Number of sets, S.
        seed: Of the random numbers.

    Returns:
        ``(S, M)`` float64.
    """
    drawn = [sums.scores(counts @ sums.rows) for counts in _counts(len(sums.rows), samples, seed)]
    return np.concatenate(drawn)


def interval(values: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval (Efron & Tibshirani 1993, chapter 13) over the first axis."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail], axis=0)
    return low, high


def compare(
    first: MetricColumns, second: MetricColumns, samples: int, confidence: float, seed: int
) -> dict[str, Comparison]:
    """Whether two systems differ by more than chance.

    The bootstrap asks how often the difference vanishes among sets of images that might have been
    captioned. Approximate randomisation asks how often a difference as large appears when it does
    not matter which system wrote which caption: captions of an image are exchanged with
    probability 1/2. Neither p-value is less than 1 / (samples + 1).

    Args:
        first: Scores of N images.
        second: Scores of the same images in the same order.
        samples: Number of resampled sets, and of exchanges.
        confidence: Of the interval of the difference.
        seed: Of the random numbers.

    Returns:
        A comparison for every score that both have.
    """
    names = [name for name in first.corpus if name in second.corpus]
    mine, other = ScoreSums(first, names), ScoreSums(second, names)
    totals = mine.rows.sum(axis=0), other.rows.sum(axis=0)
    observed = mine.scores(totals[0]) - other.scores(totals[1])

    drawn = bootstrap(mine, samples, seed) - bootstrap(other, samples, seed)
    low, high = interval(drawn, confidence)
    below, above = (drawn <= 0).sum(axis=0) + 1, (drawn >= 0).sum(axis=0) + 1
    p_bootstrap = np.minimum(1, 2 * np.minimum(below, above) / (samples + 1))

    # How far METEOR is from its mean belongs to a system and cannot be exchanged: moved=False.
    change = other.rows - mine.rows
    size = np.abs(mine.scores(totals[0], moved=False) - other.scores(totals[1], moved=False))
    extreme = np.zeros(len(names), dtype=np.int64)
    for swaps in _swaps(len(change), samples, seed):
        shift = swaps @ change
        first_scores = mine.scores(totals[0] + shift, moved=False)
        exchanged = first_scores - other.scores(totals[1] - shift, moved=False)
        # Rounding makes equal differences differ in the last bits.
        extreme += (np.abs(exchanged) >= size - 1e-12).sum(axis=0)
    p_randomization = (extreme + 1) / (samples + 1)

    rows = np.stack([observed, low, high, p_bootstrap, p_randomization], axis=1).tolist()
    return {name: Comparison(*row) for name, row in zip(mine.names, rows, strict=True)}


def _counts(size: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each of ``size`` images is drawn, for ``samples`` sets: float64 (part, size)."""
    rng = np.random.default_rng([seed, 0])
    for part in _parts(size, samples):
        drawn = rng.integers(0, size, size=(part, size)) + np.arange(part)[:, None] * size
        counts = np.bincount(drawn.ravel(), minlength=part * size)
        yield counts.reshape(part, size).astype(np.float64)


def _swaps(size: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """Which images have their captions exchanged: float64 zeros and ones (part, size)."""
    rng = np.random.default_rng([seed, 1])
    for part in _parts(size, samples):
        yield rng.integers(0, 2, size=(part, size), dtype=np.uint8).astype(np.float64)


def _parts(size: int, samples: int) -> Iterator[int]:
    most = max(1, _MOST_ENTRIES // size)
    for start in range(0, samples, most):
        yield min(most, samples - start)
