"""Captions as arrays: the references of all training pictures, and a batch of hypotheses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, pairwise

import numpy as np

from xmodaler.utils.errors import UserError

from .ngram_index import NgramIndex, NgramMatches


class References:
    """The captions of pictures, read once.

    Args:
        captions: ``{image id: [[word id, ..], ..]}``, at least one caption each.
        source: Where they come from, for messages.
        vocabulary: The id of every word, where the captions were read as words; None where ids
            are all that is known.

    Attributes:
        source, vocabulary: As given.
        words: (sum of lengths,) int32, all captions in a row.
        starts: (captions + 1,) int64, where each caption begins in ``words``.
        first: (pictures + 1,) int64, the first caption of each picture.
    """

    def __init__(
        self,
        captions: Mapping[str, Sequence[Sequence[int]]],
        source: str = "the references",
        vocabulary: dict[str, int] | None = None,
    ) -> None:
        self.source = source
        self.vocabulary = vocabulary
        self._places = {str(name): place for place, name in enumerate(captions)}
        empty = next((name for name, own in captions.items() if not len(own)), None)
        if empty is not None:
            raise UserError(f"image '{empty}' has no caption in {source}; every image needs one")
        counts = [len(own) for own in captions.values()]
        lengths = [len(words) for own in captions.values() for words in own]
        every_word = chain.from_iterable(chain.from_iterable(captions.values()))
        self.words = np.fromiter(every_word, dtype=np.int32, count=sum(lengths))
        self.starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        self.first = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._indices: dict[int, NgramIndex] = {}

    def __len__(self) -> int:
        return len(self._places)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(captions,) number of words."""
        return np.diff(self.starts)

    @property
    def names(self) -> Iterable[str]:
        """The pictures, in order."""
        return self._places.keys()

    def places(self, names: Sequence[str]) -> np.ndarray:
        """(len(names),) int64 places of pictures.

        Raises:
            UserError: A picture has no references.
        """
        try:
            return np.array([self._places[str(name)] for name in names], dtype=np.int64)
        except KeyError as error:
            raise UserError(
                f"image {error} has no reference captions in {self.source}; SCORER.GT_PATH must "
                "hold the captions of every training image"
            ) from None

    def captions(self, place: int) -> list[list[int]]:
        """The captions of the picture at a place, as lists."""
        edges = self.starts[self.first[place] : self.first[place + 1] + 1].tolist()
        return [self.words[begin:end].tolist() for begin, end in pairwise(edges)]

    def ngrams(self, max_order: int) -> NgramIndex:
        """The n-gram vectors of all captions, made once."""
        if max_order not in self._indices:
            self._indices[max_order] = NgramIndex(self.words, self.starts, self.first, max_order)
        return self._indices[max_order]


@dataclass
class Hypotheses:
    """Generated sentences.

    Attributes:
        images: (R,) int64 place of each sentence's picture among the references.
        words: (R, T) int64; what lies behind a sentence's length is -1.
        lengths: (R,) int64.
        new_words: The words behind the last id of ``References.vocabulary``, where there is one.
    """

    images: np.ndarray
    words: np.ndarray
    lengths: np.ndarray
    new_words: Sequence[str] = ()
    _matches: dict[int, NgramMatches] = field(default_factory=dict)

    @classmethod
    def from_lists(
        cls, images: np.ndarray, sentences: Sequence[Sequence[int]], new_words: Sequence[str] = ()
    ) -> Hypotheses:
        """Pads sentences of different lengths."""
        lengths = np.array([len(words) for words in sentences], dtype=np.int64)
        padded = np.full((len(sentences), int(lengths.max(initial=1))), -1, dtype=np.int64)
        for row, words in zip(padded, sentences, strict=True):
            row[: len(words)] = words
        return cls(images, padded, lengths, new_words)

    def sentences(self) -> list[list[int]]:
        """The sentences as lists."""
        pairs = zip(self.words.tolist(), self.lengths.tolist(), strict=True)
        return [words[:length] for words, length in pairs]

    def matches(self, index: NgramIndex) -> NgramMatches:
        """The n-grams shared with the references, found once for all metrics."""
        key = id(index)
        if key not in self._matches:
            self._matches[key] = index.match(self.images, self.words, self.lengths)
        return self._matches[key]
