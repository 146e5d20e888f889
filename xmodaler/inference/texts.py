"""What people ask and say, brought to word pieces as the data sets of a run bring theirs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from xmodaler.config import CfgNode
from xmodaler.datasets import JsonRecords
from xmodaler.datasets.images.understanding import UnderstandingDataset, as_ids, token_types
from xmodaler.datasets.tasks.records import cleaned
from xmodaler.inference.arrays import run_dataset
from xmodaler.tokenization import LazyTokenizer
from xmodaler.utils.errors import UserError

__all__ = ["TextReader", "checked_text", "text_list"]


class TextReader:
    """Cuts texts into word pieces, cleaned where the data set of the run cleans them.

    Args:
        cfg: The config of the run; reads ``MODEL.{PRETRAINING, MAX_SEQ_LEN}``.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self._mapper = UnderstandingDataset("test", None, LazyTokenizer(cfg), cfg.MODEL.MAX_SEQ_LEN)
        self._clean = _cleaner(cfg)

    def __call__(self, texts: Sequence[str]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Ids ``[CLS] text [SEP]`` and token types (0) of each text, int64 arrays ``(T,)``."""
        if self._clean is not None:
            texts = [self._clean(text) for text in texts]
        pieces = self._mapper.pieces(texts)
        return [as_ids(ids) for ids in pieces], [token_types(ids) for ids in pieces]

    def words(self, ids: np.ndarray) -> list[str]:
        """The word pieces of ids, special ones too."""
        return self._mapper.tokenizer.convert_ids_to_tokens(ids.tolist())


def _cleaner(cfg: CfgNode) -> Callable[[str], str] | None:
    """What cleans the texts of the data set on which a run tests its model, if anything does."""
    dataset = run_dataset(cfg)
    if not (isinstance(dataset, type) and issubclass(dataset, JsonRecords)):
        return None
    return functools.partial(cleaned, words=dataset.words_of(cfg), question=dataset.questions)


def checked_text(text: Any, what: str) -> str:
    """A text that is one and says something.

    Raises:
        UserError: It is none, or empty.
    """
    if not isinstance(text, str):
        raise UserError(f"{what} is a {type(text).__name__}; a text is needed")
    if not text.strip():
        raise UserError(f"{what} is empty; a text is needed")
    return text


def text_list(texts: Any, what: str) -> list[str]:
    """One text or several as a checked list, at least one.

    Raises:
        UserError: There is none, or one of them is no text or empty.
    """
    if isinstance(texts, str) or not isinstance(texts, Iterable):
        return [checked_text(texts, f"the {what}")]
    found = [checked_text(text, f"{what} {place}") for place, text in enumerate(texts)]
    if not found:
        raise UserError(f"there is no {what}; at least one is needed")
    return found
