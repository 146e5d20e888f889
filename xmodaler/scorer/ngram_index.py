"""The n-grams of reference captions, and which of them generated sentences share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .ngram_table import NgramTable

# Pictures indexed at a time: bounds the memory for sorting.
_AT_ONCE = 20_000


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
        pair_ngram: (p,) which of the k n-grams; ascending.
        pair_reference: (p,) which reference of the sentence's picture, from 0.
        pair_count: (p,) float64 occurrences in that reference.
        first_reference: (R,) the picture's first reference among all.
        num_references: (R,) how many it has.
        words: (T, R) the sentences, -1 where they have ended.
        remaining: (T, R) words from a position to the end.
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
    remaining: np.ndarray


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
        self.table = NgramTable(np.unique(words), max_order)
        column = words.astype(np.int64)[:, None]
        remaining = np.repeat(starts[1:], self._lengths) - np.arange(len(words))
        valid = [remaining[: max(0, len(words) - n)] > n for n in range(max_order)]
        codes = [c[:, 0][v] for c, v in zip(self.table.codes(column), valid, strict=True)]
        self.table.fill(codes)
        numbers = [self.table.find(code) for code in codes]
        self.order = np.zeros(len(self.table), dtype=np.int8)
        for order, own in enumerate(numbers):
            self.order[own] = order
        sentence = np.repeat(np.arange(len(self._lengths)), self._lengths)
        self._collect(numbers, [sentence[: len(v)][v] for v in valid])

    def _collect(self, numbers: list[np.ndarray], sentences: list[np.ndarray]) -> None:
        """Count equal n-grams of a reference; ``numbers[n][i]`` is in ``sentences[n][i]``."""
        pictures = len(self._first) - 1
        picture_of = np.repeat(np.arange(pictures), np.diff(self._first))
        most = int(np.diff(self._first).max(initial=1))
        parts = []
        for begin in range(0, pictures, _AT_ONCE):
            end = min(begin + _AT_ONCE, pictures)
            keys = []
            for own, where in zip(numbers, sentences, strict=True):
                # Sentences ascend within an order.
                low, high = np.searchsorted(where, self._first[[begin, end]])
                picture = picture_of[where[low:high]]
                place = where[low:high] - self._first[picture]
                keys.append((picture * len(self.table) + own[low:high]) * most + place)
            entries, counts = np.unique(np.concatenate(keys), return_counts=True)
            pairs, place = np.divmod(entries, most)
            picture, number = np.divmod(pairs, max(1, len(self.table)))
            edges = np.flatnonzero(np.concatenate([[True], pairs[1:] != pairs[:-1], [True]]))
            run = np.repeat(np.diff(edges), np.diff(edges)) if pairs.size else pairs
            parts.append(
                (
                    number.astype(np.int32),
                    place.astype(np.int16),
                    counts.astype(np.int16),
                    run.astype(np.int16),
                    np.bincount(picture - begin, minlength=end - begin),
                )
            )
        joined = [np.concatenate(columns) for columns in zip(*parts, strict=True)]
        self._number, self._place, self._count, self._run, sizes = joined
        self._entries = np.concatenate([[0], np.cumsum(sizes)])

    def reference_sums(self, values: np.ndarray) -> np.ndarray:
        """For every reference and order, the sum over its n-grams of ``(count * value)**2``.

        Args:
            values: (n-grams,) float64.

        Returns:
            (references, max_order) float64.
        """
        sums = np.zeros(len(self._lengths) * self.max_order)
        for begin in range(0, len(self._first) - 1, _AT_ONCE):
            end = min(begin + _AT_ONCE, len(self._first) - 1)
            low, high = self._entries[[begin, end]]
            sizes = np.diff(self._entries[begin : end + 1])
            reference = np.repeat(self._first[begin:end], sizes) + self._place[low:high]
            number = self._number[low:high]
            squares = (self._count[low:high] * values[number]) ** 2
            key = reference * self.max_order + self.order[number]
            base = int(self._first[begin]) * self.max_order
            part = np.bincount(key - base, squares)
            sums[base : base + part.size] += part
        return sums.reshape(-1, self.max_order)

    def match(self, images: np.ndarray, words: np.ndarray, lengths: np.ndarray) -> NgramMatches:
        """Look up the n-grams of sentences.

        Args:
            images: (R,) the picture of each sentence.
            words: (R, T), -1 behind the end.
            lengths: (R,).
        """
        columns = np.ascontiguousarray(words.T)
        remaining = lengths - np.arange(len(columns))[:, None]
        row, order = where_ngrams(remaining, self.max_order)
        codes = select_ngrams(self.table.codes(columns), remaining)
        count = select_ngrams(count_equal(columns, self.max_order), remaining)
        number = self.table.find(codes)
        pictures, slot = np.unique(images, return_inverse=True)
        known = np.flatnonzero(number >= 0)
        ngram, entry = self._pairs(pictures, slot[row[known]], number[known])
        return NgramMatches(
            row=row,
            order=order,
            count=count.astype(np.float64),
            number=number,
            pair_ngram=known[ngram],
            pair_reference=self._place[entry].astype(np.int64),
            pair_count=self._count[entry].astype(np.float64),
            first_reference=self._first[images],
            num_references=self._first[images + 1] - self._first[images],
            words=columns,
            remaining=remaining,
        )

    def _pairs(
        self, pictures: np.ndarray, slot: np.ndarray, number: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Every entry of n-gram ``number[i]`` in picture ``pictures[slot[i]]``, and that i."""
        entries = ranges(
            self._entries[pictures], self._entries[pictures + 1] - self._entries[pictures]
        )
        sizes = self._entries[pictures + 1] - self._entries[pictures]
        size = max(1, len(self.table))
        keys = np.repeat(np.arange(len(pictures)) * size, sizes) + self._number[entries]
        wanted = slot * size + number
        place = np.searchsorted(keys, wanted)
        hit = place < len(keys)
        hit[hit] = keys[place[hit]] == wanted[hit]
        begin = entries[place[hit]]
        run = self._run[begin].astype(np.int64)
        return np.repeat(np.flatnonzero(hit), run), ranges(begin, run)


def ranges(begin: np.ndarray, size: np.ndarray) -> np.ndarray:
    """``begin[i], begin[i] + 1, .., begin[i] + size[i] - 1`` for every i, in a row."""
    ends = np.cumsum(size)
    total = int(ends[-1]) if ends.size else 0
    return np.repeat(begin - (ends - size), size) + np.arange(total)


def where_ngrams(remaining: np.ndarray, max_order: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and order (less 1) of every n-gram, shortest first, then by position.

    Args:
        remaining: (T, R) words from a position to the end of the sentence.
        max_order: Longest n-gram.
    """
    rows = [
        (remaining[: len(remaining) - n] > n).nonzero()[1] for n in _orders(remaining, max_order)
    ]
    sizes = [len(own) for own in rows]
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), sizes)


def select_ngrams(values: list[np.ndarray], remaining: np.ndarray) -> np.ndarray:
    """Values of the n-grams that lie within their sentence, in the order of where_ngrams."""
    orders = _orders(remaining, len(values))
    return np.concatenate([values[n][remaining[: len(remaining) - n] > n] for n in orders])


def _orders(remaining: np.ndarray, max_order: int) -> range:
    return range(min(max_order, max(1, len(remaining))))


def count_equal(words: np.ndarray, max_order: int) -> list[np.ndarray]:
    """How often the n-gram at each position occurs in its sentence.

    Args:
        words: (T, R), padding -1, which no n-gram within a sentence contains.
        max_order: Longest n-gram.

    Returns:
        For each order an integer array (T - n + 1, R).
    """
    dtype = np.uint8 if len(words) < 256 else np.int64
    same_word = words[:, None] == words[None]
    same, counts = same_word, []
    for order in range(min(max_order, max(1, len(words)))):
        if order:
            same = same[:-1, :-1] & same_word[order:, order:]
        counts.append(same.view(np.uint8).sum(axis=0, dtype=dtype))
    return counts
