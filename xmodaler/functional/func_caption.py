"""From token ids to sentences, and captions to masked training inputs."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

_WORD_MASK_PROBABILITY = 0.15


def decode_sequence(vocab: Sequence[str], seq: Tensor | np.ndarray) -> list[str]:
    """Sentences of word ids.

    Args:
        vocab: Word of each id; id 0 ends a sentence.
        seq: (B, T) ids.

    Returns:
        B sentences, words joined by spaces.
    """
    sentences = []
    for row in seq.tolist():
        words = []
        for word_id in row:
            if word_id == 0:
                break
            words.append(vocab[word_id])
        sentences.append(" ".join(words))
    return sentences


def decode_sequence_bert(tokenizer: Any, seq: Tensor | np.ndarray, sep_token_id: int) -> list[str]:
    """Sentences of word-piece ids.

    Args:
        tokenizer: Offers ``ids_to_tokens`` and ``convert_tokens_to_string``.
        seq: (B, T) ids.
        sep_token_id: The id that ends a sentence.

    Returns:
        B sentences.
    """
    sentences = []
    for row in seq.tolist():
        pieces = row[: row.index(sep_token_id)] if sep_token_id in row else row
        tokens = [tokenizer.ids_to_tokens[piece] for piece in pieces]
        sentences.append(tokenizer.convert_tokens_to_string(tokens))
    return sentences


def random_word(
    tokens: list[int], tokenizer: Any, must_mask: bool = False
) -> tuple[list[int], list[int]]:
    """Hide words for masked language modelling (Devlin et al., 2019, section 3.1).

    Each token is chosen with probability 0.15; of the chosen, 80 % become ``[MASK]``, 10 % a
    token drawn from the whole vocabulary, 10 % stay.

    Args:
        tokens: Ids of word pieces without special tokens, changed in place.
        tokenizer: Offers ``mask_token``, ``convert_tokens_to_ids`` and ``len``.
        must_mask: Whether one token is hidden even if chance chose none.

    Returns:
        The ids and the labels: the original id of chosen tokens, -1 elsewhere.
    """
    mask_id = tokenizer.convert_tokens_to_ids(tokenizer.mask_token)
    labels = []
    for index, token in enumerate(tokens):
        draw = random.random()
        if draw >= _WORD_MASK_PROBABILITY:
            labels.append(-1)
            continue
        # The draw that chose the token, stretched back to [0, 1), also says what becomes of it.
        share = draw / _WORD_MASK_PROBABILITY
        if share < 0.8:
            tokens[index] = mask_id
        elif share < 0.9:
            tokens[index] = int(np.random.randint(len(tokenizer)))
        labels.append(token)
    if must_mask and tokens and all(label == -1 for label in labels):
        index = int(np.random.randint(len(tokens)))
        labels[index] = tokens[index]
        tokens[index] = mask_id
    return tokens, labels


def caption_to_mask_tokens(
    caption: str,
    max_seq_length: int,
    tokenizer: Any,
    need_g_tokens: bool = False,
    need_no_mask_tokens: bool = False,
    must_mask: bool = False,
) -> tuple[np.ndarray, ...]:
    """Inputs and targets of masked language modelling for one caption.

    Args:
        caption: The text; its content is cut to ``max_seq_length - 2`` word pieces.
        max_seq_length: Greatest length with [CLS] and [SEP].
        tokenizer: A BERT tokenizer.
        need_g_tokens: Whether next-token targets are wanted.
        need_no_mask_tokens: Whether the ids before hiding are wanted.
        must_mask: As in :func:`random_word`.

    Returns:
        int64 arrays of one length: ids with hidden words between [CLS] and [SEP]; labels, -1
        where nothing is predicted; then, as asked for, the next-token targets (the ids before
        hiding, shifted by one, last -1) and the ids before hiding.
    """
    ids = tokenizer.encode(caption.strip())[: max_seq_length - 2]
    single = tokenizer.add_special_tokens_single_sentence
    whole_ids = np.array(single(ids), dtype=np.int64)
    masked, labels = random_word(list(ids), tokenizer, must_mask)
    masked_ids = np.array(single(masked), dtype=np.int64)
    results = [masked_ids, np.array([-1, *labels, -1], dtype=np.int64)]
    if need_g_tokens:
        results.append(np.append(whole_ids[1:], -1))
    if need_no_mask_tokens:
        results.append(whole_ids)
    return tuple(results)
