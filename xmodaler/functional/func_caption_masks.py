"""Captions learned from left to right by masked words (X²-VLM, Zeng et al. 2022, section 4.3)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["CaptionSequence", "hidden_words", "interleaved_masks"]


@dataclass(frozen=True)
class CaptionSequence:
    """What a model reads of a caption and what it has to tell.

    Attributes:
        tokens_ids: (L,) int64.
        position_ids: (L,) int64.
        attention: (L, L) bool, True where the row may look at the column.
        masked_pos: (M,) int64, ascending; 0 where there are fewer words to tell.
        masked_ids: (M,) int64, the words there; the fill id where there are fewer.
        weights: (M,) float32, 1 for words to tell, 0 for the rest.
    """

    tokens_ids: np.ndarray
    position_ids: np.ndarray
    attention: np.ndarray
    masked_pos: np.ndarray
    masked_ids: np.ndarray
    weights: np.ndarray


def hidden_words(
    ids: Sequence[int],
    masked: Sequence[int],
    positions: Sequence[int],
    *,
    length: int,
    most: int,
    pad_id: int,
    fill_id: int,
) -> CaptionSequence:
    """Words to tell are replaced; every word looks at those before it.

    Args:
        ids: The caption, ``[CLS] prompt words [SEP]``.
        masked: The same with words hidden.
        positions: Of the hidden words.
        length: L.
        most: M.
        pad_id: Behind the caption.
        fill_id: Word of the places in ``masked_ids`` that are not needed.
    """
    tokens = np.full(length, pad_id, dtype=np.int64)
    tokens[: len(masked)] = masked
    chosen = sorted(positions)
    return CaptionSequence(
        tokens_ids=tokens,
        position_ids=np.arange(length),
        attention=np.tril(np.ones((length, length), dtype=bool)),
        **_targets(chosen, [ids[place] for place in chosen], most, fill_id),
    )


def interleaved_masks(
    ids: Sequence[int],
    positions: Sequence[int],
    *,
    length: int,
    most: int,
    mask_id: int,
    pad_id: int,
    fill_id: int,
) -> CaptionSequence:
    """A mask in front of every word to tell, so that training reads what generation does.

    The mask and its word share a position; no other place looks at the mask.

    Args:
        ids: The caption, ``[CLS] prompt words [SEP]``, at most ``length - most`` tokens.
        positions: Of the words to tell.
        length: L, of which ``most`` are for masks.
        most: M.
        mask_id: The mask.
        pad_id: Behind the caption.
        fill_id: As for :func:`hidden_words`.
    """
    chosen = sorted(positions)
    masks = np.array([place + number for number, place in enumerate(chosen)], dtype=np.int64)
    tokens = np.full(length, pad_id, dtype=np.int64)
    is_mask = np.zeros(length, dtype=bool)
    is_mask[masks] = True
    words = np.flatnonzero(~is_mask)[: len(ids)]
    tokens[words] = ids
    tokens[masks] = mask_id
    attention = np.tril(np.ones((length, length), dtype=bool))
    attention &= ~is_mask | np.eye(length, dtype=bool)
    # A mask stands before its word and counts for nothing.
    before = np.cumsum(is_mask) - is_mask
    return CaptionSequence(
        tokens_ids=tokens,
        position_ids=np.arange(length) - before,
        attention=attention,
        **_targets(masks, [ids[place] for place in chosen], most, fill_id),
    )


def _targets(
    places: Sequence[int], words: Sequence[int], most: int, fill_id: int
) -> dict[str, np.ndarray]:
    number = len(words)
    masked_pos = np.zeros(most, dtype=np.int64)
    masked_ids = np.full(most, fill_id, dtype=np.int64)
    masked_pos[:number], masked_ids[:number] = places, words
    return {
        "masked_pos": masked_pos,
        "masked_ids": masked_ids,
        "weights": (np.arange(most) < number).astype(np.float32),
    }
