"""Ranks where only the best candidates of every query have a score of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.evaluation.retrieval import group_texts, ranks_in_rows

__all__ = ["Candidates", "fused_ranks"]


@dataclass(frozen=True)
class Candidates:
    """The best candidates of pictures and of texts, and the pairs that they make.

    Attributes:
        of_images: (I, k) int64, texts of every picture, the best first.
        of_texts: (T, k) int64, pictures of every text.
        images: (P,) int64, the pictures of all pairs, each pair once, ascending.
        texts: (P,) int64, their texts.
    """

    of_images: Tensor
    of_texts: Tensor
    images: Tensor
    texts: Tensor

    @classmethod
    def of(cls, of_images: Tensor, of_texts: Tensor) -> Candidates:
        """The pairs of candidates, see the attributes."""
        texts = len(of_texts)
        rows = torch.arange(len(of_images))[:, None]
        columns = torch.arange(texts)[:, None]
        codes = torch.cat(
            [(rows * texts + of_images).flatten(), (of_texts * texts + columns).flatten()]
        ).unique()
        return cls(of_images, of_texts, codes // texts, codes % texts)

    def table(self, scores: Tensor, by_text: bool) -> Tensor:
        """Scores (P,) of the pairs as those of the candidates, (T, k) or (I, k)."""
        texts = len(self.of_texts)
        codes = self.images * texts + self.texts
        if by_text:
            wanted = self.of_texts * texts + torch.arange(texts)[:, None]
        else:
            wanted = torch.arange(len(self.of_images))[:, None] * texts + self.of_images
        return scores[torch.searchsorted(codes, wanted)]


def fused_ranks(
    candidates: Candidates,
    scores: Tensor,
    owners: Tensor,
    by_vectors: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the right candidates, the scored ones ahead of all others, which keep their places.

    Args:
        candidates: Those that were scored.
        scores: (P,) of their pairs.
        owners: (T,) int64, the picture of every text.
        by_vectors: Ranks of texts and of pictures by vectors.

    Returns:
        As :func:`~xmodaler.evaluation.retrieval.blockwise_ranks`.
    """
    of_texts, of_images = (
        owners[:, None],
        torch.from_numpy(group_texts(owners.numpy(), len(candidates.of_images))),
    )
    return (
        _ranks(candidates.of_texts, candidates.table(scores, True), of_texts, by_vectors[0]),
        _ranks(candidates.of_images, candidates.table(scores, False), of_images, by_vectors[1]),
    )


def _ranks(found: Tensor, scores: Tensor, right: Tensor, otherwise: Any) -> np.ndarray:
    places = []
    for column in right.T[:, :, None]:
        same = found == column
        places.append(torch.where(same.any(1), same.int().argmax(1), -1))
    ranks = ranks_in_rows(scores, torch.stack(places, dim=1)).numpy()
    return np.where(ranks >= 0, ranks, otherwise)
