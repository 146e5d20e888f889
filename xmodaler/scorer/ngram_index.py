"""The n-grams of reference captions, and which of them generated sentences share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ngram_table import NgramTable


@dataclass
class NgramMatches:
    """The n-grams of R sentences at all k positions, and p pairs of one with a reference.

    An n-gram that occurs twice in a sentence is there twice, each time with the count 2: a sum
    over different n-grams is a sum over positions of the summand divided by the count.

    Attributes:
        row: (k,) sentence.
        order: (k,) length of the n-gram, less 1.
        count: (k,) float64 occurrences in the sentence.
        number: (k,) number in the index' table, -1 where no reference has the n-gram.
        pair_ngram: (p,) which of the k n-grams.
        pair_reference: (p,) which reference of the sentence's picture, from 0.
        pair_count: (p,) float64 occurrences in that reference.
        first_reference: (R,) the picture's first reference among all.
        num_references: (R,) how many it has.
        words: (T, R) the sentences, -1 where they have ended.
        places: (k,) where the n-grams are in an array (max_order, T, R).
    """

    row: np.ndarray
    order: np.ndarray
    count: np.ndarray
    number: np.ndarray
    pair_ngram: np.ndarray
    pair_reference: np.ndarray
    pair_count: np.ndarray
    first_reference: np.ndarray
    num_references: np.ndarray
    words: np.ndarray
    places: np.ndarray


class NgramIndex:
    """Every reference as a sparse vector of n-gram counts, sorted by picture and n-gram.

    Args:
        words: (sum of lengths,) words of all references in a row.
        starts: (references + 1,) where each begins.
        first: (pictures + 1,) first reference of each picture.
        max_order: Longest n-gram.

    Attributes:
        table: The numbers of the n-grams.
        order: (n-grams,) int8, the length of each, less 1.
    """

    def __init__(
        self, words: np.ndarray, starts: np.ndarray, first: np.ndarray, max_order: int
    ) -> None:
        self.max_order = max_order
        self._first = first
        self._lengths = np.diff(starts)
        self.table = NgramTable(words, max_order)
        remaining = np.repeat(starts[1:], self._lengths) - np.arange(len(words))
        places = where_ngrams(remaining[:, None], max_order)
        codes = self.table.codes(words[:, None]).ravel()[places]
        self.table.fill(codes)
        numbers = self.table.find(codes)
        order, position = np.divmod(places, max(1, len(words)))
        self.order = np.zeros(len(self.table), dtype=np.int8)
        self.order[numbers] = order
        self._collect(numbers, np.repeat(np.arange(len(self._lengths)), self._lengths)[position])

    def _collect(self, numbers: np.ndarray, sentences: np.ndarray) -> None:
        """Count equal n-grams of a reference; ``numbers[i]`` is in reference ``sentences[i]``."""
        pictures = len(self._first) - 1
        picture = np.repeat(np.arange(pictures), np.diff(self._first))[sentences]
        place = sentences - self._first[picture]
        size, most = max(1, len(self.table)), int(np.diff(self._first).max(initial=1))
        keys = (picture * size + numbers) * most + place
        entries, counts = np.unique(keys, return_counts=True)
        pairs, place = np.divmod(entries, most)
        picture, number = np.divmod(pairs, size)
        edges = np.flatnonzero(np.diff(pairs, prepend=-1, append=-1))
        run = np.diff(edges)
        self._number = number.astype(np.int32)
        self._place = place.astype(np.int32)
        self._count = counts.astype(np.int32)
        # How many references of the picture have the n-gram.
        self._run = np.repeat(run, run).astype(np.int32)
        sizes = np.bincount(picture, minlength=pictures)
        self._entries = np.concatenate([[0], np.cumsum(sizes)])

    def reference_sums(self, values: np.ndarray) -> np.ndarray:
        """For every reference and order, the sum over its n-grams of ``(count * value)**2``.

        Args:
            values: (n-grams,) float64.

        Returns:
            (references, max_order) float64.
        """
        reference = np.repeat(self._first[:-1], np.diff(self._entries)) + self._place
        squares = (self._count * values[self._number]) ** 2
        cell = reference * self.max_order + self.order[self._number]
        sums = np.bincount(cell, squares, minlength=len(self._lengths) * self.max_order)
        return sums.reshape(-1, self.max_order)

    def match(self, images: np.ndarray, words: np.ndarray, lengths: np.ndarray) -> NgramMatches:
        """Look up the n-grams of sentences.

        Args:
            images: (R,) the picture of each sentence.
            words: (R, T), -1 behind the end.
            lengths: (R,).
        """
        columns = np.ascontiguousarray(words.T)
        places = where_ngrams(lengths - np.arange(len(columns))[:, None], self.max_order)
        position, row = np.divmod(places, max(1, len(images)))
        number = self.table.find(self.table.codes(columns).ravel()[places])
        known = np.flatnonzero(number >= 0)
        ngram, entry = self._pairs(images, row[known], number[known])
        return NgramMatches(
            row=row,
            order=position // max(1, len(columns)),
            count=count_equal(columns, self.max_order).ravel()[places].astype(np.float64),
            number=number,
            pair_ngram=known[ngram],
            pair_reference=self._place[entry],
            pair_count=self._count[entry].astype(np.float64),
            first_reference=self._first[images],
            num_references=self._first[images + 1] - self._first[images],
            words=columns,
            places=places,
        )

    def _pairs(
        self, images: np.ndarray, row: np.ndarray, number: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every entry of n-gram ``number[i]`` in picture ``images[row[i]]``, and that i."""
        pictures, slot = np.unique(images, return_inverse=True)
        first = self._entries[pictures]
        sizes = self._entries[pictures + 1] - first
        entries = ranges(first, sizes)
        # Entries ascend by n-gram within a picture, hence these keys ascend.
        bases = np.arange(len(pictures)) * len(self.table)
        keys = np.repeat(bases, sizes) + self._number[entries]
        wanted = bases[slot][row] + number
        # In ascending order the search takes less than half the time, sorting included.
        order = np.argsort(wanted)
        wanted = wanted[order]
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        hit = np.flatnonzero(keys[place] == wanted)
        begin = entries[place[hit]]
        run = self._run[begin]
        return np.repeat(order[hit], run), ranges(begin, run)


def ranges(begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    """``begin[i], begin[i] + 1, .., begin[i] + size[i] - 1`` for every i, in a row."""
    ends = np.cumsum(size)
    total = int(ends[-1]) if ends.size else 0
    return np.repeat(begin - (ends - size), size) + np.arange(total)


def where_ngrams(remaining: np.ndarray, max_order: int) -> np.ndarray:
    """Places in an array (max_order, T, R) of the n-grams that lie within their sentence.

    Args:
        remaining: (T, R) words from a position to the end of the sentence.
        max_order: Longest n-gram.

    Returns:
        (k,) int64, ascending.
    """
    return np.flatnonzero(remaining > np.arange(max_order)[:, None, None])


def count_equal(words: np.ndarray, max_order: int) -> np.ndarray:
    """How often the n-gram at each position occurs in its sentence.

    Args:
        words: (T, R), padding -1, which no n-gram within a sentence contains.
        max_order: Longest n-gram.

    Returns:
        (max_order, T, R); anything where less than n words are left of T.
    """
    narrow = words.astype(np.int32)
    same_word = narrow[:, None] == narrow[None]
    # Sums of bytes are fast, and right for sentences of up to 255 words.
    dtype = np.uint8 if len(words) < 256 else np.int64
    counts = np.zeros((max_order, *words.shape), dtype=dtype)
    same = same_word
    for order in range(min(max_order, len(words))):
        if order:
            same = same[:-1, :-1] & same_word[order:, order:]
        np.sum(same.view(np.uint8), axis=0, dtype=dtype, out=counts[order, : len(same)])
    return counts
