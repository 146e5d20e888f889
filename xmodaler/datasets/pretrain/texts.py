"""Texts of pre-training and of captioning as sequences with hidden words."""

import random
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import numpy as np

from xmodaler.config import kfg
from xmodaler.functional.func_caption_masks import CaptionSequence, hidden_words, interleaved_masks
from xmodaler.functional.func_masking import WordMasking
from xmodaler.functional.func_text import pre_caption

__all__ = ["CaptionTexts", "MaskedTexts", "draw_text"]

Text = str | Sequence[str] | Mapping[str, str]


def draw_text(text: Text, rng: Random, language: str = "") -> str:
    """One text of those that a record gives for the same thing.

    Args:
        text: A text, a list of which one is drawn, or texts by language.
        rng: Where chance comes from.
        language: Of texts by language; '' draws one.

    Raises:
        ValueError: It is none of these, or empty, or lacks the language.
    """
    if isinstance(text, Mapping):
        if language and language not in text:
            raise ValueError(f"there is no text in '{language}'")
        text = text[language] if language else text[rng.choice(list(text))]
    if isinstance(text, list | tuple):
        if not text:
            raise ValueError("the list of texts is empty")
        text = rng.choice(text)
    if not isinstance(text, str):
        raise ValueError(f"a {type(text).__name__} stands where a text is due")
    return text


class MaskedTexts:
    """From a text to its word pieces, with and without hidden ones.

    Args:
        tokenizer: Cuts the texts.
        masking: Hides word pieces.
        max_tokens: Most pieces with the special ones; also the most words.
        clean: Whether the text is cleaned by :func:`~.func_text.pre_caption` first.
        rng: Where chance comes from.
    """

    def __init__(
        self,
        tokenizer: Any,
        masking: WordMasking,
        max_tokens: int,
        clean: bool = True,
        rng: Any = random,
    ) -> None:
        self.tokenizer = tokenizer
        self.masking = masking
        self.max_tokens = max_tokens
        self.clean = clean
        self.rng = rng

    def __call__(self, text: str) -> dict[str, np.ndarray]:
        """U_TOKENS_IDS, U_TOKENS_IDS_WO_MASK and U_TARGET_IDS (-1 where nothing is hidden)."""
        tokens = self.pieces(text)
        ids = self._ids(tokens)
        hidden, positions = self.masking(tokens, self.rng)
        targets = np.full(len(ids), -1, dtype=np.int64)
        targets[positions] = ids[positions]
        return {
            kfg.U_TOKENS_IDS: self._ids(hidden),
            kfg.U_TOKENS_IDS_WO_MASK: ids,
            kfg.U_TARGET_IDS: targets,
        }

    def whole(self, text: str) -> np.ndarray:
        """(T,) ids of a text of which nothing is hidden."""
        return self._ids(self.pieces(text))

    def pieces(self, text: str) -> list[str]:
        """``[CLS] ... [SEP]``, cut to ``max_tokens``."""
        if self.clean:
            text = pre_caption(text, self.max_tokens)
        words = self.tokenizer.tokenize(text)[: self.max_tokens - 2]
        return [self.tokenizer.cls_token, *words, self.tokenizer.sep_token]

    def _ids(self, tokens: Sequence[str]) -> np.ndarray:
        return np.array(self.tokenizer.convert_tokens_to_ids(list(tokens)), dtype=np.int64)


class CaptionTexts(MaskedTexts):
    """From a caption to what a model learns from left to right.

    Captions keep their punctuation.

    Args:
        tokenizer: Cuts the captions.
        masking: Hides word pieces.
        max_tokens: Most pieces with the special ones and the prompt.
        prompt: In front of every caption; never hidden.
        interleaved: Put masks in front of words (:func:`interleaved_masks`) in place of them.
        rng: Where chance comes from.
    """

    def __init__(
        self,
        tokenizer: Any,
        masking: WordMasking,
        max_tokens: int,
        prompt: str = "",
        interleaved: bool = True,
        rng: Any = random,
    ) -> None:
        super().__init__(tokenizer, masking, max_tokens, clean=False, rng=rng)
        self.prompt = prompt.strip()
        self.interleaved = interleaved
        self.first = 1 + len(tokenizer.tokenize(self.prompt))

    def sequence(self, caption: str) -> CaptionSequence:
        """A caption with masks, drawn anew."""
        return self.sequence_of(self.pieces(f"{self.prompt} {caption}"))

    def sequence_of(self, tokens: Sequence[str]) -> CaptionSequence:
        """The same of ``[CLS] prompt caption [SEP]``, cut already."""
        ids = self._ids(tokens)
        cls_id, pad_id = self.tokenizer.cls_token_id, self.tokenizer.pad_token_id
        common = {"most": self.masking.most, "pad_id": pad_id, "fill_id": cls_id}
        if self.interleaved:
            positions = self.masking.choose(tokens, self.rng, self.first)
            length = self.max_tokens + self.masking.most
            mask_id = self.tokenizer.mask_token_id
            return interleaved_masks(ids, positions, length=length, mask_id=mask_id, **common)
        hidden, positions = self.masking(tokens, self.rng, self.first)
        return hidden_words(ids, self._ids(hidden), positions, length=self.max_tokens, **common)
