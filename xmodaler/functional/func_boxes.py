"""Boxes of pictures, one per row."""

import torch
from torch import Tensor

__all__ = ["centre_to_corners", "generalized_iou"]


def centre_to_corners(boxes: Tensor) -> Tensor:
    """(..., 4) centre x, centre y, width, height -> x1, y1, x2, y2."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], dim=-1)


def generalized_iou(first: Tensor, second: Tensor) -> Tensor:
    """Generalised intersection over union of pairs (Rezatofighi et al., CVPR 2019).

    ``IoU - (C - U) / C``, with U the area of the union and C that of the smallest box around both.

    Args:
        first: (R, 4) x1, y1, x2, y2, with x2 >= x1 and y2 >= y1.
        second: (R, 4).

    Returns:
        (R,), -1 to 1.
    """
    areas = [(box[:, 2:] - box[:, :2]).prod(1) for box in (first, second)]
    low = torch.maximum(first[:, :2], second[:, :2])
    high = torch.minimum(first[:, 2:], second[:, 2:])
    shared = (high - low).clamp(min=0).prod(1)
    union = areas[0] + areas[1] - shared
    around = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    hull = around.prod(1)
    tiny = torch.finfo(union.dtype).tiny
    return shared / union.clamp(min=tiny) - (hull - union) / hull.clamp(min=tiny)
