"""A loaded model that answers questions by ranking candidate answers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from xmodaler.config import CfgNode
from xmodaler.datasets.tasks import candidate_answers
from xmodaler.inference.answerer import Answerer

__all__ = ["RankingAnswerer"]


class RankingAnswerer(Answerer):
    """Ranks the answers of a list by how likely the model is to generate them.

    The list is DATALOADER.ANSWERS; any list will do, for the model knows words and no labels.
    Probabilities are shared out among the candidates that were scored in full.

    Args:
        model, cfg, precision, weights: As for :class:`LoadedPredictor`; the model is an
            :class:`~xmodaler.modeling.meta_arch.x2vlm.X2VLMVQA`.
    """

    def _answers_of(self, cfg: CfgNode, weights: str) -> list[str]:
        from xmodaler.evaluation.vqa_truth import read_label_answers

        self.model.set_answers(*candidate_answers(cfg))
        return read_label_answers(cfg)

    def _best(self, batch: dict[str, Any], top_k: int) -> tuple[Tensor, Tensor]:
        labels, scores = self.model.rank(batch)
        return labels[:, :top_k], scores.softmax(dim=1)[:, :top_k]
