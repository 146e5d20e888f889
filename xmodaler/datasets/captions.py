"""Captions as arrays of word ids, and the choice of captions for a training sample.

One id, 0, begins a sentence, ends it and pads the input; ignored targets are -1. A caption
``w1 .. wn`` in arrays of length L becomes the input ``0 w1 .. wn 0 ..`` and the target
``w1 .. wn 0 -1 ..``. A caption of L or more words keeps its first L words as targets, the first
L - 1 as input, and has no end.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from xmodaler.config import kfg

UNKNOWN_WORD = "UNK"


def encode_caption(word_ids: Sequence[int], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Input and target arrays of one caption.

    Args:
        word_ids: Ids >= 1 of the words.
        length: L, the size of both arrays.

    Returns:
        Input ids and target ids, int64 ``(L,)``.
    """
    tokens = np.zeros(length, dtype=np.int64)
    targets = np.full(length, -1, dtype=np.int64)
    kept = np.asarray(word_ids[:length], dtype=np.int64)
    tokens[1 : len(kept) + 1] = kept[: length - 1]
    targets[: len(kept)] = kept
    if len(kept) < length:
        targets[len(kept)] = 0
    return tokens, targets


def words_to_ids(words: Iterable[str], word_ids: dict[str, int]) -> list[int]:
    """Ids of words; unknown ones become 'UNK' where the vocabulary has it, else are dropped."""
    unknown = word_ids.get(UNKNOWN_WORD)
    ids = (word_ids.get(word, unknown) for word in words)
    return [index for index in ids if index is not None]


def sentences_to_ids(sentences: Iterable[str], word_ids: dict[str, int]) -> list[list[int]]:
    """Ids of the words of sentences as people wrote them; those without a known word are left out.

    Args:
        sentences: Text, which is tokenised here.
        word_ids: Id of every word of the vocabulary.
    """
    from xmodaler.tokenization.ptb import PTBTokenizer

    tokenizer = PTBTokenizer()
    encoded = (words_to_ids(tokenizer.tokenize(text), word_ids) for text in sentences)
    return [ids for ids in encoded if ids]


def choose_captions(available: int, wanted: int) -> list[int]:
    """Which captions of an image a training sample shows.

    ``wanted`` different ones if there are enough; otherwise all of them, after as many drawn with
    replacement as are lacking. Draws from Python's ``random``.

    Args:
        available: Captions of the image, at least 1.
        wanted: Captions in the sample.
    """
    if available >= wanted:
        return random.sample(range(available), wanted)
    return random.choices(range(available), k=wanted - available) + list(range(available))


def caption_sample(tokens: np.ndarray, targets: np.ndarray, wanted: int) -> dict[str, Any]:
    """The text keys of a training sample.

    Args:
        tokens: Input ids ``(n, L)``.
        targets: Target ids ``(n, L)``.
        wanted: S, captions in the sample.

    Returns:
        SEQ_PER_SAMPLE and lists of S int64 arrays ``(L,)``: G_TOKENS_IDS, G_TARGET_IDS,
        G_TOKENS_TYPE.
    """
    chosen = choose_captions(len(tokens), wanted)
    return {
        kfg.SEQ_PER_SAMPLE: wanted,
        kfg.G_TOKENS_IDS: [tokens[i].astype(np.int64) for i in chosen],
        kfg.G_TARGET_IDS: [targets[i].astype(np.int64) for i in chosen],
        kfg.G_TOKENS_TYPE: [np.ones(len(tokens[i]), dtype=np.int64) for i in chosen],
    }


def one_row_per_caption(datalist: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records with one caption each in place of records with all captions of an image.

    Args:
        datalist: Records; those with arrays ``tokens_ids`` and ``target_ids`` (n, L) become n
            records with (1, L), the others stay.
    """
    rows = []
    for record in datalist:
        tables = [record.get(name) for name in ("tokens_ids", "target_ids")]
        if "error" in record or any(table is None for table in tables):
            rows.append(record)
            continue
        for k in range(len(tables[0])):
            tokens, targets = (table[k : k + 1] for table in tables)
            rows.append({**record, "tokens_ids": tokens, "target_ids": targets})
    return rows
