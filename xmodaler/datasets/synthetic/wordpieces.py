"""A WordPiece vocabulary of everything that is said and asked about scenes."""

from __future__ import annotations

import string

from xmodaler.datasets.synthetic.language import ENGLISH
from xmodaler.datasets.synthetic.question_language import ENGLISH_QUESTIONS, SYNONYMS

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ENDINGS = ("es", "s")
# fmt: off
_OTHER_WORDS = (
    "are", "at", "behind", "color", "does", "have", "how", "i", "is", "many", "of", "pattern",
    "see", "shape", "shapes", "that", "the", "there", "what", "where", "which",
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
