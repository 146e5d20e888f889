"""CIDEr-D as a reward, for whole batches of sentences of word ids."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.config import configurable
from xmodaler.utils.errors import UserError

from .build import SCORER_REGISTRY
from .cider_files import NGram, read_frequencies
from .ngram_index import NgramIndex, NgramMatches
from .ngram_table import NgramTable
from .references import Hypotheses, References
from .reward import Reward, Score

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

# Words and pairs of words of the training captions that may be unknown to their own document
# frequencies: some, since a picture may have been left out; not many.
_MOST_UNKNOWN = 0.1


class _Frequencies:
    """A table of document frequencies as arrays; it never grows.

    Args:
        table: Documents that have an n-gram, by n-gram of ids or of words.
        log_num_documents: Natural logarithm of the number of documents.
        max_order: Longest n-gram of interest.

    Attributes:
        words: The words by number, where the table is one of words.
    """

    def __init__(
        self, table: Mapping[NGram, float], log_num_documents: float, max_order: int
    ) -> None:
        self.log_num_documents = log_num_documents
        self.words: list[str] | None = None
        if any(isinstance(word, str) for ngram in table for word in ngram):
            numbers: dict[str, int] = {}
            table = {
                tuple(numbers.setdefault(word, len(numbers)) for word in ngram): count
                for ngram, count in table.items()
            }
            self.words = list(numbers)
        by_order: list[list[tuple[tuple[int, ...], float]]] = [[] for _ in range(max_order)]
        for ngram, count in table.items():
            if 0 < len(ngram) <= max_order:
                by_order[len(ngram) - 1].append((ngram, count))
        self.ngrams = [
            np.array([ngram for ngram, _ in own], dtype=np.int64).reshape(-1, order)
            for order, own in enumerate(by_order, 1)
        ]
        self.counts = [np.array([count for _, count in own], dtype=np.float64) for own in by_order]

    def numbered_as(self, references: References, source: str) -> _Frequencies:
        """The same with the ids that the references give to words.

        Raises:
            UserError: One side has words, the other only ids.
        """
        vocabulary = references.vocabulary
        if self.words is None and vocabulary is None:
            return self
        if self.words is None or vocabulary is None:
            has, lacks = (source, references.source)
            if self.words is None:
                has, lacks = lacks, has
            raise UserError(
                f"{has} holds words and {lacks} ids; SCORER.NAME BertTokenizedScorer needs words "
                "in both files, BaseScorer ids; write both with tools/cider_cache.py"
            )
        ids = [vocabulary.setdefault(word, len(vocabulary)) for word in self.words]
        other = copy(self)
        other.words, other.ngrams = None, [np.array(ids)[own] for own in self.ngrams]
        return other

    def weights(self, counts: np.ndarray) -> np.ndarray:
        """``log N - log max(1, df)``."""
        return self.log_num_documents - np.log(np.maximum(1.0, counts))

    def by_number(self, table: NgramTable) -> np.ndarray:
        """Document frequencies of the members of ``table``, 0 for those that have none."""
        found = np.zeros(len(table))
        for ngrams, counts in zip(self.ngrams, self.counts, strict=True):
            numbers = table.find(_codes(table, ngrams))
            found[numbers[numbers >= 0]] = counts[numbers >= 0]
        return found

    def outside(self, table: NgramTable) -> tuple[NgramTable, np.ndarray]:
        """The n-grams that ``table`` lacks, as a table of their own, and their frequencies."""
        rest = [own[table.find(_codes(table, own)) < 0] for own in self.ngrams]
        others = NgramTable(np.concatenate([own.ravel() for own in rest]), table.max_order)
        others.fill(np.concatenate([_codes(others, own) for own in rest]))
        return others, self.by_number(others)


def _codes(table: NgramTable, ngrams: np.ndarray) -> np.ndarray:
    """Codes (k,) of n-grams (k, n) of one length."""
    return table.codes(ngrams.T)[ngrams.shape[1] - 1, 0]


class _BoundCider:
    """CIDEr-D against fixed references.

    Args:
        frequencies: Document frequencies.
        references: The captions of the training pictures.
        max_order: Longest n-gram.
        sigma: Width of the length penalty.
    """

    def __init__(
        self, frequencies: _Frequencies, references: References, max_order: int, sigma: float
    ) -> None:
        self.max_order, self.sigma = max_order, sigma
        self.index: NgramIndex = references.ngrams(max_order)
        self.frequencies = frequencies
        self.weights = frequencies.weights(frequencies.by_number(self.index.table))
        self.others, other_counts = frequencies.outside(self.index.table)
        self.other_weights = frequencies.weights(other_counts)
        self.norms = np.sqrt(self.index.reference_sums(self.weights))
        self.bigrams = np.maximum(0, references.lengths - 1)

    def __call__(self, sentences: Hypotheses) -> np.ndarray:
        """Scores (R,) float64."""
        found = sentences.matches(self.index)
        rows, orders = len(sentences.lengths), self.max_order
        weights = self._ngram_weights(found)
        group = found.row * orders + found.order
        squares = np.bincount(group, found.count * weights**2, minlength=rows * orders)
        norms = np.sqrt(squares).reshape(rows, 1, orders)

        most = int(found.num_references.max(initial=1))
        ngram = found.pair_ngram
        own = found.count[ngram] * weights[ngram]
        other = found.pair_count * weights[ngram]
        products = np.minimum(own, other) * other / found.count[ngram]
        cell = (found.row[ngram] * most + found.pair_reference) * orders + found.order[ngram]
        dots = np.bincount(cell, products, minlength=rows * most * orders)

        place = np.arange(most)
        real = place < found.num_references[:, None]
        reference = np.where(real, found.first_reference[:, None] + place, 0)
        scale = norms * self.norms[reference]
        cosine = dots.reshape(rows, most, orders) / np.where(scale > 0, scale, 1.0)
        difference = np.maximum(0, sentences.lengths - 1)[:, None] - self.bigrams[reference]
        penalty = np.exp(-(difference**2) / (2 * self.sigma**2)) * real
        total = (cosine.sum(axis=2) * penalty).sum(axis=1)
        return 10.0 * total / (orders * found.num_references)

    def _ngram_weights(self, found: NgramMatches) -> np.ndarray:
        weights = np.full(found.number.shape, self.frequencies.log_num_documents)
        known = found.number >= 0
        weights[known] = self.weights[found.number[known]]
        if len(self.others):
            codes = self.others.codes(found.words).ravel()[found.places]
            numbers = self.others.find(codes)
            elsewhere = numbers >= 0
            weights[elsewhere] = self.other_weights[numbers[elsewhere]]
        return weights


@SCORER_REGISTRY.register()
class Cider(Reward):
    """CIDEr-D (Vedantam, Zitnick & Parikh 2015, section 7) with document frequencies from a file.

    The definition is that of :class:`~xmodaler.scorer.cider_core.CiderD`, which scores one
    sentence of anything hashable; this one scores batches of word ids in a fraction of the time.

    Args:
        n: Longest n-gram.
        sigma: Width of the length penalty.
        cider_cached: File of document frequencies, see
            :func:`~xmodaler.scorer.cider_files.read_frequencies`.
    """

    @configurable
    def __init__(self, *, n: int = 4, sigma: float = 6.0, cider_cached: str) -> None:
        self.n = n
        self.sigma = sigma
        self.cider_cached = cider_cached
        self._frequencies = _Frequencies(*read_frequencies(cider_cached), n)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"n": 4, "sigma": 6.0, "cider_cached": cfg.SCORER.CIDER_CACHED}

    def bind(self, references: References) -> Score:
        return _BoundCider(self._numbered(references), references, self.n, self.sigma)

    def _numbered(self, references: References) -> _Frequencies:
        source = f"'{self.cider_cached}' (SCORER.CIDER_CACHED)"
        return self._frequencies.numbered_as(references, source)

    def method(self) -> str:
        return "CIDEr"

    def check(self, references: References) -> None:
        """Refuse document frequencies that were counted on other captions.

        Raises:
            UserError: Too many words or pairs of words of the references have none.
        """
        index = references.ngrams(self.n)
        short = index.order < 2
        counts = self._numbered(references).by_number(index.table)[short]
        unknown = float((counts == 0).mean()) if counts.size else 0.0
        if unknown > _MOST_UNKNOWN:
            raise UserError(
                f"{unknown:.0%} of the words and pairs of words in {references.source} are absent "
                f"from the document frequencies in '{self.cider_cached}' (SCORER.CIDER_CACHED): it "
                "was counted on other captions or with another vocabulary; write both with "
                "tools/cider_cache.py"
            )
