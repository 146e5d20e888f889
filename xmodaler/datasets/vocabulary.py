"""Building, writing and reading word lists.

A vocabulary file has one word a line; the word on line k has id k, and id 0 begins and ends
sentences.
"""

import os
from collections import Counter
from collections.abc import Iterable

from xmodaler.utils.errors import UserError

from .captions import UNKNOWN_WORD


def build_vocabulary(
    captions: Iterable[list[str]],
    min_count: int = 5,
    order: str = "first",
    unknown: str = UNKNOWN_WORD,
    max_len: int = 0,
) -> list[str]:
    """Words that occur often enough, and the unknown word last if any word was left out.

    Args:
        captions: Tokenised captions.
        min_count: Least number of occurrences.
        order: ``"first"`` (of appearance) or ``"frequency"`` (most frequent first, then first).
        unknown: The word that stands for those left out; '' for none.
        max_len: Look at so many words of each caption only; 0 looks at all.
    """
    if order not in ("first", "frequency"):
        raise UserError(f"order '{order}' is unknown; it is 'first' or 'frequency'")
    counts: Counter[str] = Counter()
    for words in captions:
        counts.update(words[: max_len or None])
    kept = [word for word, count in counts.items() if count >= min_count and word != unknown]
    if order == "frequency":
        kept.sort(key=lambda word: -counts[word])
    if not kept:
        raise UserError(
            f"no word occurs {min_count} times in the {sum(counts.values())} words of the captions;"
            " give more captions or a smaller least count"
        )
    return [*kept, unknown] if unknown and len(kept) < len(counts) else kept


def write_vocabulary(path: str | os.PathLike, words: list[str]) -> None:
    """Write one word a line, UTF-8; an existing file is replaced only when all is written."""
    from xmodaler.utils.atomic import atomic_write

    with atomic_write(path) as file:
        file.write("".join(f"{word}\n" for word in words).encode("utf-8"))


def read_word_ids(path: str | os.PathLike) -> dict[str, int]:
    """Ids (>= 1) by word of a vocabulary file.

    Raises:
        UserError: The file does not exist, is not UTF-8, is empty, or has an empty or double line.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            words = [line.strip() for line in file.read().rstrip("\n").split("\n")]
    except OSError as error:
        raise UserError(
            f"vocabulary '{path}' cannot be read ({error.strerror}); INFERENCE.VOCAB must name a "
            "file with one word a line, such as tools/build_vocabulary.py writes"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"vocabulary '{path}' is not UTF-8 text") from None
    ids: dict[str, int] = {}
    for number, word in enumerate(words, start=1):
        if not word:
            raise UserError(f"line {number} of the vocabulary '{path}' is empty; remove it")
        if word in ids:
            raise UserError(
                f"line {number} of the vocabulary '{path}' repeats '{word}' of line {ids[word]}"
            )
        ids[word] = number
    return ids
