"""How texts are cleaned before they are cut into word pieces (X²-VLM, Zeng et al. 2022)."""

import re
from collections.abc import Iterable

from xmodaler.utils.errors import UserError

__all__ = ["mentions_sides", "pre_caption", "pre_question"]

_SEPARATORS = str.maketrans(dict.fromkeys(",.'!?\"()*#:;~-/", " "))
_SPACES = re.compile(r"\s{2,}")
# In English, German, French, and Chinese or Japanese.
_SIDES = ("left", "right", "links", "linke", "rechts", "rechte", "gauche", "droite", "左", "右")


def pre_caption(text: str, max_words: int) -> str:
    """A caption in lower case, without punctuation and with single spaces.

    Args:
        text: A caption.
        max_words: How many words are kept.

    Raises:
        UserError: Nothing is left of the text.
    """
    cleaned = _plain(text).replace("<person>", "person")
    cleaned = _SPACES.sub(" ", cleaned).rstrip("\n").strip(" ")
    cleaned = _first_words(cleaned, max_words)
    if not cleaned:
        raise UserError(f"the caption {text!r} holds no word")
    return cleaned


def pre_question(text: str, max_words: int) -> str:
    """A question in lower case and without punctuation; spaces inside stay as they are.

    Args:
        text: A question.
        max_words: How many words, separated by one space each, are kept.
    """
    return _first_words(_plain(text).rstrip(" "), max_words)


def mentions_sides(texts: Iterable[str]) -> bool:
    """Whether a text says "left" or "right", so that its picture must not be mirrored.

    The words of German, French, Chinese and Japanese count, too.
    """
    return any(side in text.lower() for text in texts for side in _SIDES)


def _plain(text: str) -> str:
    return text.lower().translate(_SEPARATORS)


def _first_words(text: str, number: int) -> str:
    return " ".join(text.split(" ")[:number])
