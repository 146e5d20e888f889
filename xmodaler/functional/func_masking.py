"""Which words of a text are hidden from a model that learns to tell them."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from xmodaler.utils.errors import UserError

__all__ = ["WordMasking"]

INSIDE = "##"
"""What pieces inside a word begin with."""

_HIDDEN, _EXCHANGED = 0.8, 0.5


@dataclass(frozen=True)
class WordMasking:
    """Hides whole words and runs of words (X²-VLM, Zeng et al. 2022, appendix).

    ``n = min(most, max(1, round(length * probability)))`` tokens are hidden. Starting points come
    in random order; from each a single token is taken or, with probability ``span_probability``,
    a run of 2 to ``longest_span`` tokens, which ``whole_words`` widens to the borders of words.
    The first token is never hidden, the last one ([SEP]) may be. What exceeds n is given up by
    chance. Of the chosen tokens 80 % become ``mask_token``, 10 % any token of the vocabulary, and
    10 % stay.

    Args:
        vocabulary: All tokens in the order of their ids.
        probability: Share of the tokens to hide.
        most: Most tokens to hide.
        span_probability: Of a run in place of a single token.
        longest_span: Most tokens of a run, before it is widened.
        whole_words: Hide words of WordPiece as a whole.
        mask_token: What stands in place of hidden tokens.
    """

    vocabulary: Sequence[str]
    probability: float
    most: int
    span_probability: float = 0.2
    longest_span: int = 3
    whole_words: bool = True
    mask_token: str = "[MASK]"

    def __post_init__(self) -> None:
        if not 0 < self.probability <= 1 or self.most < 1:
            raise UserError(
                f"masking of {self.probability:g} of the words and at most {self.most}: the share "
                "must lie in (0, 1] and at least one word be allowed"
            )

    def choose(self, tokens: Sequence[str], rng: Random, first: int = 1) -> list[int]:
        """Positions to hide, in the order in which they are hidden.

        Args:
            tokens: Of one text with its special tokens.
            rng: Where chance comes from; Python's module ``random`` will do.
            first: The first position that may be hidden; between 1 and it stands a prompt, which
                does not count.
        """
        places = list(range(first, len(tokens)))
        if not places:
            return []
        number = min(self.most, max(1, round((len(places) + 1) * self.probability)))
        rng.shuffle(places)
        chosen: set[int] = set()
        for place in places:
            if len(chosen) >= number:
                break
            if place in chosen:
                continue
            start, end = self._span(tokens, place, rng)
            # A word that begins before the first position is left alone.
            if start >= first:
                chosen.update(range(start, min(end, len(tokens))))
        # Sets of small numbers have a fixed order, so equal seeds give equal choices.
        found = list(chosen)
        if len(found) > number:
            rng.shuffle(found)
        return found[:number]

    def _span(self, tokens: Sequence[str], place: int, rng: Random) -> tuple[int, int]:
        length = 1
        runs = self.span_probability > 0 and self.longest_span >= 2
        if runs and rng.random() < self.span_probability:
            length = rng.randint(2, self.longest_span)
        start, end = place, place + length
        if self.whole_words:
            while start >= 0 and tokens[start].startswith(INSIDE):
                start -= 1
            while end < len(tokens) and tokens[end].startswith(INSIDE):
                end += 1
        return start, end

    def __call__(
        self, tokens: Sequence[str], rng: Random, first: int = 1
    ) -> tuple[list[str], list[int]]:
        """The tokens with some of them hidden, and the positions of those.

        Args:
            tokens: As for :meth:`choose`; they are not changed.
            rng: As for :meth:`choose`.
            first: As for :meth:`choose`.
        """
        positions = self.choose(tokens, rng, first)
        hidden = list(tokens)
        for position in positions:
            if rng.random() < _HIDDEN:
                hidden[position] = self.mask_token
            elif rng.random() < _EXCHANGED:
                hidden[position] = self.vocabulary[rng.randint(0, len(self.vocabulary) - 1)]
        return hidden, positions
