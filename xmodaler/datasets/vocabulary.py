"""Building, writing and reading word lists.

A vocabulary file has one word a line; the word on line k has id k, and id 0 begins and ends
sentences.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterable

import numpy as np

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .annotations import read_captions
from .captions import UNKNOWN_WORD, encode_caption, words_to_ids

_logger = logging.getLogger(__name__)


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


def tokenized_captions(
    paths: Iterable[str | os.PathLike], split: str = ""
) -> list[tuple[str, list[list[str]]]]:
    """Image ids and the tokenised captions of annotation files, in file order.

    Args:
        paths: COCO captions JSON or JSON lines.
        split: Keep the pictures whose ``split`` equals this; '' keeps all.

    Raises:
        UserError: A file is unreadable.
    """
    from xmodaler.tokenization.ptb import PTBTokenizer

    tokenize = PTBTokenizer().tokenize
    found = []
    for path in paths:
        images, problems = read_captions(path, split)
        for problem in problems:
            _logger.warning("%s", problem)
        found.extend((i.image_id, [tokenize(caption) for caption in i.captions]) for i in images)
    return found


def write_encoded_captions(
    path: str | os.PathLike,
    captions: list[tuple[str, list[list[str]]]],
    words: list[str],
    length: int,
    id_key: str = "image_id",
) -> int:
    """Write encoded captions as :class:`MSCoCoDataset` reads them.

    Args:
        path: A ``.json`` or ``.npz`` file, such as ``mscoco_caption_anno_train.json``.
        captions: As :func:`tokenized_captions` gives them.
        words: The vocabulary; word k (from 0) has id k + 1.
        length: Size of the arrays.
        id_key: Key of the ids in a ``.json`` file; the data sets of videos call it ``video_id``.

    Returns:
        Number of images written; those without a caption are left out.
    """
    import json

    from xmodaler.utils.atomic import atomic_write

    if not str(path).endswith((".json", ".npz")):
        raise UserError(f"'{path}' must end with .json or .npz")
    ids = {word: k for k, word in enumerate(words, start=1)}
    records = []
    for image_id, sentences in captions:
        encoded = [known for sentence in sentences if (known := words_to_ids(sentence, ids))]
        if encoded:
            arrays = [encode_caption(caption, length) for caption in encoded]
            records.append((image_id, *(np.stack(table) for table in zip(*arrays, strict=True))))
    with atomic_write(path) as file:
        if str(path).endswith(".npz"):
            np.savez_compressed(
                file,
                image_id=np.array([record[0] for record in records]),
                captions=np.array([len(record[1]) for record in records]),
                tokens_ids=np.concatenate([r[1] for r in records]).astype(np.uint32),
                target_ids=np.concatenate([r[2] for r in records]).astype(np.int32),
            )
        else:
            # Record by record: all of COCO's as Python numbers would take gigabytes.
            for k, (image_id, tokens, targets) in enumerate(records):
                row = {id_key: image_id, "tokens_ids": tokens.tolist()}
                row["target_ids"] = targets.tolist()
                text = json.dumps(row, separators=(",", ":"))
                file.write(f"{',' if k else '['}\n{text}".encode())
            file.write(b"\n]" if records else b"[]")
    return len(records)


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
    path = expand_path(path)
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
