"""A loaded model that finds pictures and texts by vectors and scores the best again by fusion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.evaluation.retrieval import top_candidates
from xmodaler.evaluation.vector_index import VectorIndex
from xmodaler.inference.base import batches
from xmodaler.inference.retriever import NO_PICTURES, Ranking, rankings_of
from xmodaler.inference.texts import text_list
from xmodaler.inference.vector_retriever import VectorRetriever
from xmodaler.modeling.meta_arch.x2vlm.text_pool import TextPool
from xmodaler.utils.errors import UserError

__all__ = ["FusionRetriever"]


class FusionRetriever(VectorRetriever):
    """Compares vectors, then fuses the best candidates of every query with it.

    INFERENCE.RERANK says how many candidates are fused, at least as many as are asked for; 0 ranks
    by vectors alone, and so does an index, which has no pictures or texts to fuse. Scores of fused
    candidates are logits, those of vectors products.

    Args:
        model, cfg, precision, weights: As for :class:`LoadedPredictor`; the model is an
            :class:`~xmodaler.modeling.meta_arch.x2vlm.X2VLMRetrieval`.
    """

    @torch.inference_mode()
    def embed_texts(self, texts: str | Sequence[str], batch_size: int = 64) -> Tensor:
        return self._encode_texts(text_list(texts, "text"), batch_size)[0]

    def _embed(
        self, samples: Iterable[dict[str, Any]], batch_size: int
    ) -> tuple[list[str], Tensor]:
        return self._encode_pictures(samples, batch_size)[:2]

    def rank_pictures(
        self,
        queries: list[str],
        pictures: Iterable[dict[str, Any]] | VectorIndex,
        top_k: int = 10,
        batch_size: int = 64,
    ) -> list[Ranking]:
        if isinstance(pictures, VectorIndex) or self.cfg.INFERENCE.RERANK <= 0:
            return super().rank_pictures(queries, pictures, top_k, batch_size)
        names, vectors, tokens = self._encode_pictures(pictures, batch_size)
        if not names:
            raise UserError(NO_PICTURES)
        text_vectors, pool = self._encode_texts(queries, batch_size)
        found = self._fused(text_vectors, vectors, top_k)
        return self._ranked(queries, names, found, tokens, pool, top_k, batch_size, by_text=True)

    def rank_texts(
        self,
        pictures: Iterable[dict[str, Any]],
        texts: Sequence[str] | VectorIndex,
        top_k: int = 10,
        batch_size: int = 64,
    ) -> list[Ranking]:
        if isinstance(texts, VectorIndex) or self.cfg.INFERENCE.RERANK <= 0:
            return super().rank_texts(pictures, texts, top_k, batch_size)
        given = text_list(texts, "candidate text")
        names, vectors, tokens = self._encode_pictures(pictures, batch_size)
        if not names:
            return []
        text_vectors, pool = self._encode_texts(given, batch_size)
        found = self._fused(vectors, text_vectors, top_k)
        return self._ranked(names, given, found, tokens, pool, top_k, batch_size, by_text=False)

    def _fused(self, queries: Tensor, pool: Tensor, top_k: int) -> Tensor:
        """The candidates (Q, k) of each query that are fused with it."""
        return top_candidates(queries, pool, max(top_k, self.cfg.INFERENCE.RERANK))[1]

    @torch.inference_mode()
    def _ranked(
        self,
        queries: Sequence[str],
        names: Sequence[str],
        found: Tensor,
        tokens: Sequence[Tensor],
        pool: TextPool,
        top_k: int,
        batch_size: int,
        by_text: bool,
    ) -> list[Ranking]:
        own = torch.arange(len(found))[:, None].expand_as(found).flatten()
        images, texts = (found.flatten(), own) if by_text else (own, found.flatten())
        order = images.argsort(stable=True)
        scores = torch.zeros(len(order))
        with self._autocast():
            scores[order] = self.model.score_pairs(
                tokens, pool, images[order], texts[order], batch_size
            )
        ranked = []
        for row, places in zip(scores.view_as(found), found.tolist(), strict=True):
            best = row.argsort(descending=True, stable=True)[:top_k].tolist()
            ranked.append([(names[places[k]], float(row[k])) for k in best])
        return rankings_of(queries, ranked)

    @torch.inference_mode()
    def _encode_pictures(
        self, samples: Iterable[dict[str, Any]], batch_size: int
    ) -> tuple[list[str], Tensor, list[Tensor]]:
        names, vectors, tokens = [], [], []
        for part in batches(samples, batch_size):
            with self._autocast():
                found = self.model.encode_images(self.model.preprocess_batch(part))
            vectors.append(found[0].float().cpu())
            tokens += found[1].cpu().unbind(0)
            names += [str(sample[kfg.IDS]) for sample in part]
        return names, torch.cat(vectors) if vectors else torch.empty(0, 0), tokens

    @torch.inference_mode()
    def _encode_texts(self, texts: Sequence[str], batch_size: int) -> tuple[Tensor, TextPool]:
        vectors, pools = [], []
        for part in batches(texts, batch_size):
            keys = self._text_keys(part)
            samples = [{key: keys[key][row] for key in keys} for row in range(len(part))]
            with self._autocast():
                found, states = self.model.encode_texts(self.model.preprocess_batch(samples))
            vectors.append(found.float().cpu())
            pools.append(TextPool.of(states, "cpu"))
        return torch.cat(vectors), TextPool.joined(pools)
