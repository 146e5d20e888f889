"""Mirrored pictures, and what a mirror does to texts."""

import random
from collections.abc import Sequence
from typing import Any

from ..visual_source import VisualSource


class MirrorDraw:
    """Says of every sample whether its picture is mirrored.

    Args:
        source: Has mirrored pictures or not.
        probability: Of a mirrored picture.
    """

    def __init__(self, source: VisualSource, probability: float) -> None:
        self.source = source
        self.probability = probability
        self._possible: bool | None = None

    def __call__(self) -> bool:
        """A draw; none is made where there are no mirrored pictures."""
        if self.probability <= 0:
            return False
        if self._possible is None:
            self._possible = self.source.can_mirror()
        return self._possible and random.random() > 1 - self.probability


class WordSwap:
    """Lets two words change places in sequences of word pieces.

    Args:
        tokenizer: Says which pieces the words are.
        first: A word.
        second: The other word.
    """

    def __init__(self, tokenizer: Any, first: str = "left", second: str = "right") -> None:
        self._words = (tuple(tokenizer.encode(first)), tuple(tokenizer.encode(second)))
        unknown = tokenizer.unk_token_id
        # Words that a tokenizer does not know look all the same to it.
        self._known = all(word and unknown not in word for word in self._words)

    def __call__(self, pieces: Sequence[int]) -> list[int]:
        """The pieces with each of the words replaced by the other."""
        if not self._known:
            return list(pieces)
        swapped: list[int] = []
        place = 0
        while place < len(pieces):
            for word, other in (self._words, self._words[::-1]):
                if tuple(pieces[place : place + len(word)]) == word:
                    swapped.extend(other)
                    place += len(word)
                    break
            else:
                swapped.append(pieces[place])
                place += 1
        return swapped
