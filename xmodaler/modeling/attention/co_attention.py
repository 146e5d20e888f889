"""Co-attention between two sequences."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable

from ..layers.grouping import queries_per_image
from .build import ATTENTION_REGISTRY


class CoAttended(NamedTuple):
    """What two sequences make of each other.

    Attributes:
        image: (B * G, image_dim), the attended regions of each text.
        text: (B * G, text_dim), the attended words.
        image_weights: (B * G, N).
        text_weights: (B * G, T).
    """

    image: Tensor
    text: Tensor
    image_weights: Tensor
    text_weights: Tensor


@ATTENTION_REGISTRY.register()
class CoAttention(nn.Module):
    """Parallel co-attention (Lu et al. 2016, "Hierarchical Question-Image Co-Attention", eq. 3-5).

    Regions V and words Q weigh each other through their affinities C::

        C = tanh(Q W_b V^T)
        H_v = tanh(V W_v + C^T (Q W_q)),   a_v = softmax(H_v w_hv),   v = sum_n a_v,n V_n
        H_q = tanh(Q W_q + C (V W_v)),     a_q = softmax(H_q w_hq),   q = sum_t a_q,t Q_t

    It needs whole sequences on both sides, so no decoder that asks with one vector at a time can
    use it. A sequence without anything real is attended to as zeros.

    Args:
        image_dim: Width of the regions.
        text_dim: Width of the words.
        embed_dim: Inner width.
        dropout: Dropout of H_v and H_q.
    """

    takes_vector_query = False

    @configurable
    def __init__(
        self, *, image_dim: int, text_dim: int, embed_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.affinity = nn.Linear(text_dim, image_dim, bias=False)
        self.image_embed = nn.Linear(image_dim, embed_dim)
        self.text_embed = nn.Linear(text_dim, embed_dim)
        self.image_score = nn.Linear(embed_dim, 1, bias=False)
        self.text_score = nn.Linear(embed_dim, 1, bias=False)
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, image_dim: int, text_dim: int, embed_dim: int, dropout: float = 0.0
    ) -> dict[str, Any]:
        """Constructor keywords from the sizes of the model."""
        sizes = {"image_dim": image_dim, "text_dim": text_dim}
        return {**sizes, "embed_dim": embed_dim, "dropout": dropout}

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        image_visible: Tensor | None = None,
        text_visible: Tensor | None = None,
    ) -> CoAttended:
        """Attend both ways.

        Args:
            image: (B, N, image_dim).
            text: (B * G, T, text_dim), the G texts of an image adjacent.
            image_visible: (B, N) bool, True where a region is real.
            text_visible: (B * G, T) bool, True where a word is real.
        """
        images, rows = image.shape[0], text.shape[0]
        queries_per_image(rows, images)
        if image_visible is None:
            image_visible = image.new_ones(image.shape[:2], dtype=torch.bool)
        if text_visible is None:
            text_visible = text.new_ones(text.shape[:2], dtype=torch.bool)
        words = text.unflatten(0, (images, -1))  # (B, G, T, text_dim)
        seen_regions = image_visible[:, None]
        seen_words = text_visible.unflatten(0, (images, -1))
        affinity = torch.tanh(self.affinity(words) @ image.mT.unsqueeze(1))
        affinity = affinity * (seen_words.unsqueeze(-1) & seen_regions.unsqueeze(-2))
        from_image = self.image_embed(image).unsqueeze(1)
        from_words = self.text_embed(words)
        joint_image = torch.tanh(from_image + affinity.mT @ from_words)
        joint_words = torch.tanh(from_words + affinity @ from_image)
        image_weights = self._weights(self.image_score, joint_image, seen_regions)
        text_weights = self._weights(self.text_score, joint_words, seen_words)
        return CoAttended(
            (image_weights @ image).flatten(0, 1),
            (text_weights.unsqueeze(-2) @ words).squeeze(-2).flatten(0, 1),
            image_weights.flatten(0, 1),
            text_weights.flatten(0, 1),
        )

    def _weights(self, score: nn.Linear, joint: Tensor, visible: Tensor) -> Tensor:
        """(B, G, n, embed) -> (B, G, n); 0 where nothing is visible."""
        scores = score(self.dropout(joint)).squeeze(-1)
        hidden = torch.finfo(scores.dtype).min
        weights = torch.softmax(scores.masked_fill(~visible, hidden), dim=-1)
        return weights * visible
