"""Numbers for n-grams of word ids, looked up many at a time."""

from __future__ import annotations

import numpy as np

from xmodaler.utils.errors import UserError

# 2^64 divided by the golden ratio spreads neighbouring codes (Knuth, The Art of Computer
# Programming 3, section 6.4).
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MOST_ORDERS_BITS = 63


class NgramTable:
    """Gives every n-gram of a fixed set a number, exactly and without a dictionary.

    An n-gram is coded as the integer with its words as digits: 1 .. v for the v known words,
    v + 1 for any other, so that n-grams of different lengths have different codes and one with an
    unknown word has that of no member. An open-addressing hash table in an array leads from codes
    to numbers; both building and asking handle all n-grams at once.

    Args:
        vocabulary: The known words, non-negative ids.
        max_order: Longest n-gram.
    """

    def __init__(self, vocabulary: np.ndarray, max_order: int) -> None:
        known = _sorted_unique(np.asarray(vocabulary, dtype=np.int64))
        if known.size and known[0] < 0:
            raise UserError(f"word ids are 0 or more, but a caption holds {known[0]}")
        self.max_order = max_order
        self._base = known.size + 2
        if self._base**max_order >= 2**_MOST_ORDERS_BITS:
            most = int(2 ** (_MOST_ORDERS_BITS / max_order)) - 2
            raise UserError(
                f"captions with {known.size} different words are too many for rewards on "
                f"{max_order}-grams; the most is {most}"
            )
        self._highest = int(known[-1]) if known.size else -1
        # The last entry serves unknown words, those above the highest and the padding -1 alike.
        self._digits = np.full(self._highest + 2, known.size + 1, dtype=np.int64)
        self._digits[known] = np.arange(1, known.size + 1)
        self.fill(np.zeros(0, dtype=np.int64))

    def fill(self, codes: np.ndarray) -> None:
        """Replace the members by the n-grams with these codes (k,); equal ones count once."""
        self._codes = _sorted_unique(codes)
        # Three quarters empty at least, so that a search ends after a look or two.
        bits = max(4, int(4 * self._codes.size).bit_length())
        self._shift, self._mask = np.uint64(64 - bits), (1 << bits) - 1
        self._slots = np.full(1 << bits, -1, dtype=np.int32)
        pending = np.arange(self._codes.size, dtype=np.int32)
        places = self._places(self._codes)
        while pending.size:
            free = self._slots[places] < 0
            self._slots[places[free]] = pending[free]
            crowded_out = self._slots[places] != pending
            pending = pending[crowded_out]
            places = (places[crowded_out] + 1) & self._mask

    def __len__(self) -> int:
        return self._codes.size

    def codes(self, words: np.ndarray) -> np.ndarray:
        """Codes of the n-grams that begin at each position.

        Args:
            words: (L, R) ids, the words of a sentence along the first axis; -1 is padding.

        Returns:
            (max_order, L, R) int64; 0 where less than n words are left of L.
        """
        digits = self._digits[np.minimum(words, self._highest + 1)]
        codes = np.zeros((self.max_order, *words.shape), dtype=np.int64)
        codes[0] = digits
        for order in range(1, min(self.max_order, len(words))):
            np.multiply(codes[order - 1, :-order], self._base, out=codes[order, :-order])
            codes[order, :-order] += digits[order:]
        return codes

    def find(self, codes: np.ndarray) -> np.ndarray:
        """Numbers (k,) int32 of the n-grams with codes (k,); -1 for those of no member."""
        if not len(self):
            return np.full(codes.shape, -1, dtype=np.int32)
        places = self._places(codes)
        numbers = self._slots[places]
        wrong = np.flatnonzero((numbers >= 0) & (self._codes[numbers] != codes))
        while wrong.size:
            places[wrong] = (places[wrong] + 1) & self._mask
            found = self._slots[places[wrong]]
            numbers[wrong] = found
            wrong = wrong[(found >= 0) & (self._codes[found] != codes[wrong])]
        return numbers

    def _places(self, codes: np.ndarray) -> np.ndarray:
        return ((codes.view(np.uint64) * _SPREAD) >> self._shift).astype(np.int64)


def _sorted_unique(values: np.ndarray) -> np.ndarray:
    """Distinct values (k,), ascending; some versions of ``np.unique`` take ten times as long."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)]]
