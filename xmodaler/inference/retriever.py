"""Loaded models that rank pictures by texts and texts by pictures."""

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
from xmodaler.evaluation.retrieval import top_candidates
from xmodaler.evaluation.vector_index import VectorIndex
from xmodaler.inference.base import LoadedPredictor, OnError, batches, check_counts
from xmodaler.inference.inputs import FEATURE_SUFFIXES, PICTURE_SUFFIXES, is_one
from xmodaler.inference.texts import TextReader, text_list
from xmodaler.modeling.stage_keys import SCORES_ONLY
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.file_kinds import VIDEO_SUFFIXES

__all__ = ["Hit", "PairRetriever", "Ranking", "Retriever", "VectorRetriever"]


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


class VectorRetriever(Retriever):
    """Compares the vectors of a model that encodes pictures and texts independently.

    Every picture and text is encoded once; vectors can be kept in an index.

    Args:
        model, cfg, precision, weights: As for :class:`LoadedPredictor`; the model has
            ``encode_images`` and ``encode_texts``.
    """

    @torch.inference_mode()
    def embed_pictures(
        self, pictures: Any, batch_size: int = 64, on_error: OnError = "raise"
    ) -> tuple[list[str], Tensor]:
        """The names of pictures and their vectors ``(N, P)``, on the CPU."""
        return self._embed(self.read(pictures, on_error), batch_size)

    @torch.inference_mode()
    def embed_texts(self, texts: str | Sequence[str], batch_size: int = 64) -> Tensor:
        """The vectors ``(N, P)`` of texts, on the CPU."""
        vectors = []
        for part in batches(text_list(texts, "text"), batch_size):
            keys = self._text_keys(part)
            samples = [{key: keys[key][row] for key in keys} for row in range(len(part))]
            with self._autocast():
                found = self.model.encode_texts(self.model.preprocess_batch(samples))
            vectors.append(found.float().cpu())
        return torch.cat(vectors)

    def index(
        self,
        pictures: Any = None,
        texts: Sequence[str] | None = None,
        kind: str = "exact",
        batch_size: int = 64,
        on_error: OnError = "raise",
        into: VectorIndex | None = None,
    ) -> VectorIndex:
        """An index of pictures or of texts, to search again and again, to save and to extend.

        Args:
            pictures: Pictures to encode, or
            texts: Texts to encode.
            kind: Of a new index; see :class:`~xmodaler.evaluation.vector_index.VectorIndex`.
            batch_size, on_error: As in :meth:`retrieve`.
            into: An index to extend; what it has already is left out.
        """
        if (pictures is None) == (texts is None):
            raise UserError("an index is made of pictures or of texts; give one of the two")
        if texts is not None:
            names = text_list(texts, "text")
            vectors = self.embed_texts(names, batch_size)
        else:
            names, vectors = self.embed_pictures(pictures, batch_size, on_error)
            if not names:
                raise UserError("no picture could be read, so there is nothing to index")
        index = VectorIndex(vectors.shape[1], kind) if into is None else into
        places = {name: place for place, name in enumerate(names) if name not in index}
        index.add(list(places), vectors[list(places.values())])
        return index

    def _embed(
        self, samples: Iterable[dict[str, Any]], batch_size: int
    ) -> tuple[list[str], Tensor]:
        names, vectors = [], []
        with torch.inference_mode():
            for part in batches(samples, batch_size):
                with self._autocast():
                    found = self.model.encode_images(self.model.preprocess_batch(part))
                vectors.append(found.float().cpu())
                names += [str(sample[kfg.IDS]) for sample in part]
        return names, torch.cat(vectors) if vectors else torch.empty(0, 0)

    def rank_pictures(
        self,
        queries: list[str],
        pictures: Iterable[dict[str, Any]] | VectorIndex,
        top_k: int = 10,
        batch_size: int = 64,
    ) -> list[Ranking]:
        vectors = self.embed_texts(queries, batch_size)
        if isinstance(pictures, VectorIndex):
            return _rankings(queries, pictures.search(vectors, top_k))
        names, pool = self._embed(pictures, batch_size)
        if not names:
            raise UserError(_NO_PICTURES)
        return _rankings(queries, _best(vectors, pool, names, top_k))

    def rank_texts(
        self,
        pictures: Iterable[dict[str, Any]],
        texts: Sequence[str] | VectorIndex,
        top_k: int = 10,
        batch_size: int = 64,
    ) -> list[Ranking]:
        given = None if isinstance(texts, VectorIndex) else text_list(texts, "candidate text")
        names, vectors = self._embed(pictures, batch_size)
        if not names:
            return []
        if given is None:
            return _rankings(names, texts.search(vectors, top_k))
        return _rankings(names, _best(vectors, self.embed_texts(given, batch_size), given, top_k))


class PairRetriever(Retriever):
    """Scores every pair of a picture and a text with a model that reads both together.

    Args:
        model, cfg, precision, weights: As for :class:`LoadedPredictor`.
    """

    @torch.inference_mode()
    def scores(
        self, texts: Sequence[str], samples: Iterable[dict[str, Any]], batch_size: int = 64
    ) -> tuple[list[str], Tensor]:
        """The names of pictures and the scores ``(texts, pictures)`` of all pairs.

        A picture is embedded once for all texts that are scored with it together.

        Args:
            texts: The texts.
            samples: Of pictures, as :meth:`read` gives them.
            batch_size: Pairs that go through the model together.
        """
        keys = self._text_keys(texts)
        at_once = min(len(texts), batch_size)
        names, columns = [], []
        for part in batches(samples, max(1, batch_size // at_once)):
            names += [str(sample[kfg.IDS]) for sample in part]
            rows = []
            for start in range(0, len(texts), at_once):
                words = {key: values[start : start + at_once] for key, values in keys.items()}
                batch = self.model.preprocess_batch([{**sample, **words} for sample in part])
                with self._autocast():
                    outputs = self.model({**batch, SCORES_ONLY: True})
                rows.append(outputs[kfg.U_LOGITS].float().reshape(len(part), -1).cpu())
            columns.append(torch.cat(rows, dim=1))
        return names, torch.cat(columns).t() if columns else torch.empty(len(texts), 0)

    def rank_pictures(
        self,
        queries: list[str],
        pictures: Iterable[dict[str, Any]] | VectorIndex,
        top_k: int = 10,
        batch_size: int = 64,
    ) -> list[Ranking]:
        _refuse_index(pictures)
        names, scores = self.scores(queries, pictures, batch_size)
        if not names:
            raise UserError(_NO_PICTURES)
        return _rankings(queries, _sorted(scores, names, top_k))

    def rank_texts(
        self,
        pictures: Iterable[dict[str, Any]],
        texts: Sequence[str] | VectorIndex,
        top_k: int = 10,
        batch_size: int = 64,
    ) -> list[Ranking]:
        _refuse_index(texts)
        given = text_list(texts, "candidate text")
        names, scores = self.scores(given, pictures, batch_size)
        return _rankings(names, _sorted(scores.t(), given, top_k)) if names else []


_NO_PICTURES = "there is no picture to rank; at least one that can be read is needed"


def _refuse_index(candidates: Any) -> None:
    if isinstance(candidates, VectorIndex):
        raise UserError(
            "this model scores pairs and has no vectors, so it cannot search an index; give the "
            "pictures or texts themselves"
        )


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


def _best(
    queries: Tensor, pool: Tensor, names: Sequence[str], top_k: int
) -> list[list[tuple[str, float]]]:
    return _named(*top_candidates(queries, pool, top_k), names)


def _sorted(scores: Tensor, names: Sequence[str], top_k: int) -> list[list[tuple[str, float]]]:
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :top_k]
    return _named(scores.gather(1, order), order, names)


def _named(scores: Tensor, places: Tensor, names: Sequence[str]) -> list[list[tuple[str, float]]]:
    return [
        [(names[place], score) for score, place in zip(row, at, strict=True)]
        for row, at in zip(scores.tolist(), places.tolist(), strict=True)
    ]


def _rankings(
    queries: Sequence[str], found: Sequence[Sequence[tuple[str, float]]]
) -> list[Ranking]:
    return [
        Ranking(query, tuple(Hit(name, score) for name, score in hits))
        for query, hits in zip(queries, found, strict=True)
    ]
