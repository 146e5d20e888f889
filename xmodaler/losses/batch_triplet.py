"""The ranking loss of a batch of matching images and texts."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from .build import LOSSES_REGISTRY


@LOSSES_REGISTRY.register()
class BatchTriplet(nn.Module):
    """Every match against the mismatches of its text and of its image in the batch.

    With ``S[i, j]`` the similarity of text i and image j (Faghri et al., BMVC 2018, equations 5
    and 6)::

        r[i, j] = max(0, margin + S[i, j] - S[i, i])      other images for a text
        c[i, j] = max(0, margin + S[i, j] - S[j, j])      other texts for an image

    both 0 where i and j are of the same image. ``max_violation``: ``sum_i max_j r + sum_j max_i
    c``, the hardest mismatch of each; otherwise the mean of the positive r plus that of the
    positive c, 0 where there are none.

    Several processes each rank their own part of the global batch, as their batch normalisation
    does: mismatches are not exchanged, and the sum is over the local batch.

    Args:
        margin: By how much a match should be ahead.
        max_violation: Count the hardest mismatch alone.
    """

    @configurable
    def __init__(self, *, margin: float, max_violation: bool) -> None:
        super().__init__()
        self.margin, self.max_violation = margin, max_violation

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {"margin": cfg.LOSSES.MARGIN, "max_violation": cfg.LOSSES.MAX_VIOLATION}

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates no keys."""

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """``BatchTriplet Loss`` of OUTPUT (B, B), with IDS, the image of every row."""
        scores, ids = outputs_dict[kfg.OUTPUT], outputs_dict[kfg.IDS]
        return {"BatchTriplet Loss": batch_triplet(scores, ids, self.margin, self.max_violation)}


def batch_triplet(scores: Tensor, ids: Sequence[Any], margin: float, max_violation: bool) -> Tensor:
    """The loss of :class:`BatchTriplet`.

    Args:
        scores: (B, B) similarities, rows are texts, columns images, matches on the diagonal.
        ids: The B image ids; pairs of equal ones are no mismatches.
        margin: By how much a match should be ahead.
        max_violation: Count the hardest mismatch alone.

    Returns:
        A scalar in float32.

    Raises:
        UserError: The scores are not those of B texts and B images.
    """
    if scores.ndim != 2 or not scores.shape[0] == scores.shape[1] == len(ids):
        raise UserError(
            f"BatchTriplet needs similarities of as many texts as images, one id each, but has "
            f"scores of shape {tuple(scores.shape)} and {len(ids)} ids; give one text per image"
        )
    scores = scores.float()
    numbers: dict[str, int] = {}
    images = torch.tensor([numbers.setdefault(str(key), len(numbers)) for key in ids])
    same = (images[:, None] == images).to(scores.device)
    matched = scores.diagonal()
    for_texts = (margin + scores - matched[:, None]).clamp(min=0).masked_fill(same, 0)
    for_images = (margin + scores - matched).clamp(min=0).masked_fill(same, 0)
    if max_violation:
        return for_texts.amax(dim=1).sum() + for_images.amax(dim=0).sum()
    return _mean_of_positive(for_texts) + _mean_of_positive(for_images)


def _mean_of_positive(costs: Tensor) -> Tensor:
    return costs.sum() / (costs > 0).sum().clamp(min=1)
