"""Masks: bool (True = real) and their additive twins."""

import torch
from torch import Tensor


def as_bool(mask: Tensor) -> Tensor:
    """A bool mask of a bool, integer or float mask whose non-zero entries are real."""
    return mask if mask.dtype == torch.bool else mask != 0


def compute_dtype(reference: Tensor) -> torch.dtype:
    """The dtype in which matrix products run for ``reference``: autocast's, or its own."""
    device_type = reference.device.type
    if torch.is_autocast_enabled(device_type):
        return torch.get_autocast_dtype(device_type)
    return reference.dtype


BERT_HIDDEN = -10000.0
"""What BERT adds to the scores of hidden positions."""


def additive(visible: Tensor, dtype: torch.dtype, hidden: float | None = None) -> Tensor:
    """0 where visible, a large negative number elsewhere.

    By default half the dtype's most negative number: half, so that adding any score stays
    finite; a softmax over nothing but hidden entries then is uniform instead of NaN.

    Args:
        visible: Bool mask of any shape.
        dtype: A floating dtype.
        hidden: The negative number, or None for the default.
    """
    hidden = torch.finfo(dtype).min / 2 if hidden is None else hidden
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(
        ~visible, hidden
    )


def over_keys(mask: Tensor) -> Tensor:
    """An additive mask of regions for multi-head attention.

    Recurrent models have (B, N), Transformers (B, 1, 1, N); the result is the latter.
    """
    return mask[:, None, None] if mask.dim() == 2 else mask
