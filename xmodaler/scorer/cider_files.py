"""The two files behind CIDEr-D rewards: the references of the training pictures, and how many
pictures have each n-gram.

Both are JSON; the pickles that other projects keep in their place are read as well. Words are ids,
or text for models that write word pieces.
"""

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .cider_core import document_frequencies

WordIds = list[int]
NGram = tuple[int, ...] | tuple[str, ...]


def write_references(
    path: str | os.PathLike[str], references: Mapping[str, list[WordIds] | list[list[str]]]
) -> None:
    """Write ``{image id: [[word id, ..], ..]}``, or words in place of ids."""
    from xmodaler.utils.atomic import atomic_write

    with atomic_write(path, "w") as file:
        json.dump(dict(references), file, separators=(",", ":"))


def read_references(path: str | os.PathLike[str]) -> dict[str, list[WordIds]]:
    """The references of every picture, as lists of word ids that end with the id of EOS.

    Args:
        path: JSON or a pickle; where it does not exist, the same name with the other ending.

    Raises:
        UserError: No such file, or not such a dict.
    """
    return _read_captions(path, int, "word ids")


def read_word_references(path: str | os.PathLike[str]) -> dict[str, list[list[str]]]:
    """The references of every picture, as lists of words.

    Args:
        path: JSON or a pickle; where it does not exist, the same name with the other ending.

    Raises:
        UserError: No such file, or not such a dict.
    """
    return _read_captions(path, _word, "words (--tokenizer)")


def _read_captions(
    path: str | os.PathLike[str], read: Callable[[Any], Any], what: str
) -> dict[str, Any]:
    content, path = _read(path, "SCORER.GT_PATH")
    try:
        return {
            _text(name): [[read(word) for word in words] for words in captions]
            for name, captions in content.items()
        }
    except (AttributeError, TypeError, ValueError):
        raise UserError(
            f"'{path}' is not a dict from image ids to captions of {what}; "
            "tools/cider_cache.py --gts writes one"
        ) from None


def _word(word: Any) -> str:
    if not isinstance(word, str | bytes):
        raise TypeError("an id in place of a word")
    return _text(word)


def count_documents(
    references: Mapping[str, list[WordIds]], num_images: int | None = None
) -> tuple[Counter[NGram], float]:
    """How many pictures have an n-gram (1 to 4 words) in any of their references.

    Args:
        references: As :func:`read_references` gives them.
        num_images: Number of pictures N; by default that of the references.

    Returns:
        The counts, and ln N.

    Raises:
        UserError: There is no picture.
    """
    count = len(references) if num_images is None else num_images
    if count < 1:
        raise UserError("document frequencies need the references of at least one picture")
    return document_frequencies(references.values()), math.log(count)


def write_frequencies(
    path: str | os.PathLike[str], frequencies: Mapping[NGram, float], log_num_images: float
) -> None:
    """Write ``{"ref_len": ln N, "document_frequency": {"12 7": 3, ..}}``.

    N-grams of words, not of ids, are marked by ``"words": true``.
    """
    from xmodaler.utils.atomic import atomic_write

    table = {" ".join(map(str, ngram)): int(count) for ngram, count in frequencies.items()}
    content: dict[str, Any] = {"ref_len": log_num_images, "document_frequency": table}
    if any(isinstance(word, str) for ngram in frequencies for word in ngram):
        content["words"] = True
    with atomic_write(path, "w") as file:
        json.dump(content, file)


def read_frequencies(path: str | os.PathLike[str]) -> tuple[dict[NGram, float], float]:
    """Document frequencies and ln of the number of training pictures.

    Args:
        path: JSON or a pickle; where it does not exist, the same name with the other ending.

    Raises:
        UserError: No such file, or not such a table.
    """
    content, path = _read(path, "SCORER.CIDER_CACHED")
    try:
        content = {_text(key): value for key, value in content.items()}
        read = _text if content.get("words") else _word_or_id
        table = {_ngram(key, read): float(n) for key, n in content["document_frequency"].items()}
        return table, float(content["ref_len"])
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"'{path}' does not hold 'ref_len' and a table 'document_frequency'; "
            "tools/cider_cache.py --outfile writes them"
        ) from None


def _ngram(key: str | Iterable[Any], read: Callable[[Any], int | str]) -> NGram:
    """An n-gram from the text of a JSON file, whose words are ids unless the file says otherwise,
    or from the tuple of a pickle.
    """
    if isinstance(key, str):
        read = int if read is _word_or_id else read
        return tuple(read(word) for word in key.split(" "))
    return tuple(read(word) for word in key)


def _word_or_id(word: Any) -> int | str:
    return _text(word) if isinstance(word, str | bytes) else int(word)


def _text(key: Any) -> str:
    return key.decode("utf-8") if isinstance(key, bytes) else str(key)


def _read(path: str | os.PathLike[str], setting: str) -> tuple[Any, str]:
    path = expand_path(path)
    stem = os.path.splitext(path)[0]
    found = next((p for p in (path, stem + ".json", stem + ".pkl") if os.path.isfile(p)), None)
    if found is None:
        raise UserError(
            f"'{path}' does not exist (nor the same as .json or .pkl); {setting} must name a file "
            "that tools/cider_cache.py writes"
        )
    if not found.endswith(".json"):
        from xmodaler.utils import safe_pickle

        return safe_pickle.load(found), found
    try:
        with open(found, encoding="utf-8") as file:
            return json.load(file), found
    except (ValueError, OSError) as error:
        raise UserError(f"'{found}' cannot be read as JSON: {error}") from None
