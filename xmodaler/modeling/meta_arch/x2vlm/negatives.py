"""Hard negatives from the same batch (Li et al., ALBEF, NeurIPS 2021, section 3.2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

SMOOTHING = 1e-5
"""Added to every probability, so that each candidate can be drawn."""


@dataclass(frozen=True)
class Negatives:
    """A picture for every text and a text for every picture that do not belong to them.

    Attributes:
        images: (R,) int64, rows of pictures, one per text.
        texts: (R,) int64, rows of texts, one per picture.
    """

    images: Tensor
    texts: Tensor


@torch.no_grad()
def negative_weights(
    images: Tensor, texts: Tensor, temperature: Tensor, ids: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """How likely every candidate is drawn: the likelier, the closer it is.

    Args:
        images: Unit vectors (R, E), in float32.
        texts: Unit vectors (R, E).
        temperature: What products are divided by.
        ids: (R,), equal for pairs that are no negatives of each other; None: all differ.

    Returns:
        For every picture the weights of texts (R, R), and for every text those of pictures; rows
        do not sum to one.
    """
    products = images.float() @ texts.float().T / temperature.float()
    number = len(products)
    same = torch.eye(number, dtype=torch.bool, device=products.device)
    if ids is not None:
        same = ids.view(-1, 1) == ids.view(1, -1)
    of_images = (products.softmax(dim=1) + SMOOTHING).masked_fill(same, 0)
    of_texts = (products.T.softmax(dim=1) + SMOOTHING).masked_fill(same.T, 0)
    return of_images, of_texts


@torch.no_grad()
def draw_negatives(of_images: Tensor, of_texts: Tensor) -> Negatives | None:
    """Draw from what :func:`negative_weights` returned; pictures first, then texts.

    Returns:
        The negatives, or None where a row has no candidate: a batch of one pair, or of pairs that
        all have the same id.
    """
    if not (of_images.sum(1) > 0).all():
        return None
    images = torch.multinomial(of_texts, 1).squeeze(1)
    return Negatives(images, torch.multinomial(of_images, 1).squeeze(1))
