"""A loaded model that scores pairs of a picture and a text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.evaluation.vector_index import VectorIndex
from xmodaler.inference.base import batches
from xmodaler.inference.retriever import NO_PICTURES, Ranking, Retriever, named, rankings_of
from xmodaler.inference.texts import text_list
from xmodaler.modeling.stage_keys import SCORES_ONLY
from xmodaler.utils.errors import UserError

__all__ = ["PairRetriever"]


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
            raise UserError(NO_PICTURES)
        return rankings_of(queries, _sorted(scores, names, top_k))

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
        return rankings_of(names, _sorted(scores.t(), given, top_k)) if names else []


def _refuse_index(candidates: Any) -> None:
    if isinstance(candidates, VectorIndex):
        raise UserError(
            "this model scores pairs and has no vectors, so it cannot search an index; give the "
            "pictures or texts themselves"
        )


def _sorted(scores: Tensor, names: Sequence[str], top_k: int) -> list[list[tuple[str, float]]]:
    order = scores.argsort(dim=1, descending=True, stable=True)[:, :top_k]
    return named(scores.gather(1, order), order, names)
