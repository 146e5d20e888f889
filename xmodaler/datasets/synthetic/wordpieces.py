"""A WordPiece vocabulary of everything that is said and asked about scenes."""

from __future__ import annotations

import string
import unicodedata

from xmodaler.datasets.synthetic.language import ENGLISH
from xmodaler.datasets.synthetic.question_language import ENGLISH_QUESTIONS, SYNONYMS
from xmodaler.datasets.synthetic.tongues import TONGUES

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ENDINGS = ("es", "s")
# fmt: off
_OTHER_WORDS = (
    "are", "at", "behind", "color", "does", "have", "how", "i", "is", "many", "of", "pattern",
    "see", "shape", "shapes", "that", "the", "there", "what", "where", "which",
)
# Those of statements, expressions and questions about videos.
_X2VLM_WORDS = (
    "both", "bottom", "changes", "do", "down", "leftmost", "more", "moves", "nothing", "one",
    "only", "or", "picture", "pictures", "rightmost", "show", "shows", "sideways", "size",
    "stays", "than", "top", "up",
)
# fmt: on


def word_pieces() -> list[str]:
    """The pieces, id by id, the same for every data set.

    Special tokens, marks and letters come first, so that any English word can be spelled; then
    words. A plural is its singular and an ending.
    """
    nouns = dict(pair[::-1] for pair in ENGLISH.kinds.values())
    words = {*ENGLISH.words(), *_OTHER_WORDS, *SYNONYMS.values()}
    words |= {word for answer in ENGLISH_QUESTIONS.answers() for word in answer.split()}
    whole = {nouns.get(word, word) for word in words}
    letters = [*string.ascii_lowercase, *string.digits]
    endings = [f"##{piece}" for piece in (*letters, *_ENDINGS)]
    first = [*SPECIAL, *".,?'", *letters, *dict.fromkeys(endings)]
    return [*first, *sorted(whole - set(first))]


def multilingual_pieces() -> list[str]:
    """Those of :func:`word_pieces`, and words and letters of all languages.

    Words stand as BERT's tokenizer leaves them, in lower case and without accents, and characters
    of Chinese and Japanese one by one: those that form longer words there may end one, too.
    """
    pieces = dict.fromkeys([*word_pieces(), "-"])
    words = {*_X2VLM_WORDS, *(word for tongue in TONGUES.values() for word in tongue.words())}
    plain = {_without_accents(word) for word in words}
    marks = {mark for word in plain for mark in word}
    pieces |= dict.fromkeys(sorted(marks))
    pieces |= dict.fromkeys(f"##{mark}" for mark in sorted(marks) if mark.isalpha())
    return list(pieces | dict.fromkeys(sorted(plain)))


def _without_accents(word: str) -> str:
    parts = unicodedata.normalize("NFD", word.lower())
    return "".join(mark for mark in parts if unicodedata.category(mark) != "Mn")
