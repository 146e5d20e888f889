"""What loaded models that rank pictures and texts share."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import CfgNode, kfg
from xmodaler.evaluation.vector_index import VectorIndex
from xmodaler.inference.base import LoadedPredictor, OnError, check_counts
from xmodaler.inference.inputs import FEATURE_SUFFIXES, PICTURE_SUFFIXES, is_one
from xmodaler.inference.texts import TextReader, text_list
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.file_kinds import VIDEO_SUFFIXES

__all__ = ["NO_PICTURES", "Hit", "Ranking", "Retriever", "named", "rankings_of"]


@dataclass(frozen=True)
class Hit:
    """A picture or a text that was found.

    Attributes:
        id: The text, or the path of the picture or its place among the inputs.
        score: How well it fits; comparable within one ranking.
    """

    id: str
    score: float


@dataclass(frozen=True)
class Ranking(Sequence[Hit]):
    """What was found for a query, best first.

    Attributes:
        query: The text, or the path of the picture or its place among the inputs.
        hits: The finds.
    """

    query: str
    hits: tuple[Hit, ...]

    def __len__(self) -> int:
        return len(self.hits)

    def __getitem__(self, place: Any) -> Any:
        return self.hits[place]

    def as_dict(self) -> dict[str, Any]:
        """What goes into a line of JSON."""
        return {
            "query": self.query,
            "hits": [{"id": hit.id, "score": hit.score} for hit in self.hits],
        }


class Retriever(LoadedPredictor):
    """Ranks pictures for texts and texts for pictures.

    Args:
        model, cfg, precision, weights: As for :class:`LoadedPredictor`.
    """

    ability = "ranks pictures and texts: .retrieve(text, pictures) or .retrieve(picture, texts)"

    def __init__(
        self, model: torch.nn.Module, cfg: CfgNode, precision: str = "fp32", weights: str = ""
    ) -> None:
        super().__init__(model, cfg, precision, weights)
        self._read_texts = TextReader(cfg)

    def retrieve(
        self,
        query: Any,
        candidates: Any,
        top_k: int = 10,
        batch_size: int = 64,
        by: str = "",
        on_error: OnError = "raise",
    ) -> Ranking | list[Ranking]:
        """The pictures that fit a text best, or the texts that fit a picture best.

        Args:
            query: A text or several; or a picture or several, of the kinds that
                :meth:`Captioner.caption` takes. A string is a picture if a file of this name
                exists or its ending is that of one.
            candidates: Pictures for a text, texts for a picture; for models with vectors also an
                index of either.
            top_k: How many to find.
            batch_size: Pictures, texts, or pairs of them that go through the model together.
            by: ``"text"`` or ``"picture"``, in place of guessing which one the query is.
            on_error: What happens to one of many pictures that cannot be read; see :meth:`read`.

        Returns:
            A :class:`Ranking` for one query, else a list of them, in order. Among equal scores
            the order of the candidates counts.

        Raises:
            UserError: There is no query or no candidate, or one cannot be read.
        """
        check_counts(top_k=top_k, batch_size=batch_size)
        by = by or ("picture" if _is_picture(query) else "text")
        if by not in ("text", "picture"):
            raise UserError(f"by is '{by}'; a query is a 'text' or a 'picture'")
        if by == "text":
            one = isinstance(query, str)
            queries = text_list(query, "query")
            is_index = isinstance(candidates, VectorIndex)
            pool = candidates if is_index else self.read(candidates, on_error)
            rankings = self.rank_pictures(queries, pool, top_k, batch_size)
        else:
            one = is_one(query, self.kind)
            samples = self.read(query, "raise" if one else on_error)
            rankings = self.rank_texts(samples, candidates, top_k, batch_size)
        if not rankings:
            raise UserError("no picture of the query could be read")
        return rankings[0] if one else rankings

    @abstractmethod
    def rank_pictures(
        self,
        queries: list[str],
        pictures: Iterable[dict[str, Any]] | VectorIndex,
        top_k: int = 10,
        batch_size: int = 64,
    ) -> list[Ranking]:
        """A ranking for every text.

        Args:
            queries: The texts.
            pictures: Samples with IDS and visual keys, or an index.
            top_k, batch_size: As in :meth:`retrieve`.
        """

    @abstractmethod
    def rank_texts(
        self,
        pictures: Iterable[dict[str, Any]],
        texts: Sequence[str] | VectorIndex,
        top_k: int = 10,
        batch_size: int = 64,
    ) -> list[Ranking]:
        """A ranking for every picture; see :meth:`rank_pictures`."""

    def _text_keys(self, texts: Sequence[str]) -> dict[str, list[np.ndarray]]:
        ids, types = self._read_texts(texts)
        return {kfg.U_TOKENS_IDS: ids, kfg.U_TOKENS_TYPE: types}


#: What is said where there are no candidates.
NO_PICTURES = "there is no picture to rank; at least one that can be read is needed"


def _is_picture(query: Any) -> bool:
    """Whether a query is a picture, or begins with one."""
    if isinstance(query, list | tuple) and query:
        query = query[0]
    if not isinstance(query, str):
        return not isinstance(query, list | tuple)
    if not query.strip():
        return False
    path = Path(expand_path(query))
    suffixes = PICTURE_SUFFIXES | FEATURE_SUFFIXES | VIDEO_SUFFIXES
    try:
        return path.suffix.lower() in suffixes or os.path.exists(path)
    except (OSError, ValueError):  # too long for a file, or with a null character
        return False


def named(scores: Tensor, places: Tensor, names: Sequence[str]) -> list[list[tuple[str, float]]]:
    """Names with their scores, for scores and places ``(Q, k)`` of what was found."""
    return [
        [(names[place], score) for score, place in zip(row, at, strict=True)]
        for row, at in zip(scores.tolist(), places.tolist(), strict=True)
    ]


def rankings_of(
    queries: Sequence[str], found: Sequence[Sequence[tuple[str, float]]]
) -> list[Ranking]:
    """A ranking for every query, from the names and scores of what was found."""
    return [
        Ranking(query, tuple(Hit(name, score) for name, score in hits))
        for query, hits in zip(queries, found, strict=True)
    ]
