"""Stochastic depth (Huang et al., ECCV 2016), per sample."""

import torch
from torch import Tensor

from .packing import Packing


def drop_path(x: Tensor, probability: float, packing: Packing | None = None) -> Tensor:
    """Leave whole rows of a batch out of a residual branch, and scale up those that stay.

    Args:
        x: What is to be added to the residual: (rows, ...), or (count, D) with ``packing``.
        probability: Of dropping a row; 0 returns ``x`` itself.
        packing: Which positions of the padded rows are real.

    Returns:
        Shaped like ``x``: ``x / (1 - probability)`` in rows that stay, 0 elsewhere.
    """
    if probability <= 0:
        return x
    rows = x.shape[0] if packing is None else packing.rows
    kept = torch.rand(rows, device=x.device) >= probability
    if packing is not None:
        kept = kept[packing.index // packing.length]
    scale = kept.to(x.dtype) / (1 - probability)
    return x * scale.view(-1, *[1] * (x.dim() - 1))
