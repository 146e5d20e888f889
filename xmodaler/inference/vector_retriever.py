"""A loaded model that compares the vectors of pictures and texts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.evaluation.retrieval import top_candidates
from xmodaler.evaluation.vector_index import VectorIndex
from xmodaler.inference.base import OnError, batches
from xmodaler.inference.retriever import NO_PICTURES, Ranking, Retriever, named, rankings_of
from xmodaler.inference.texts import text_list
from xmodaler.utils.errors import UserError

__all__ = ["VectorRetriever"]


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
            return rankings_of(queries, pictures.search(vectors, top_k))
        names, pool = self._embed(pictures, batch_size)
        if not names:
            raise UserError(NO_PICTURES)
        return rankings_of(queries, _best(vectors, pool, names, top_k))

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
            return rankings_of(names, texts.search(vectors, top_k))
        return rankings_of(names, _best(vectors, self.embed_texts(given, batch_size), given, top_k))


def _best(
    queries: Tensor, pool: Tensor, names: Sequence[str], top_k: int
) -> list[list[tuple[str, float]]]:
    return named(*top_candidates(queries, pool, top_k), names)
