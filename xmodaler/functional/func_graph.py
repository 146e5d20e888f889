"""Graphs over the regions of a picture."""

import math

import torch
from torch import Tensor

SPATIAL_RELATIONS = 12
"""Labels of :func:`spatial_relations`: 0 for no edge, and 11 classes."""

_INSIDE, _COVER, _OVERLAP = 1, 2, 3
_SECTOR = math.pi / 4


def spatial_relations(
    boxes: Tensor,
    picture_size: tuple[float, float] = (1.0, 1.0),
    min_overlap: float = 0.5,
    max_distance: float = 0.5,
) -> Tensor:
    """How every pair of regions lies to each other (Yao et al. 2018, section 3.2).

    The label of the edge from region i to region j is the first that fits:

    * 1 ("inside"): the box of i includes that of j;
    * 2 ("cover"): the box of i is covered by that of j;
    * 3 ("overlap"): their intersection over union is at least ``min_overlap``;
    * ``3 + ceil(angle / 45 degrees)``, 4 to 11, of the direction from the centre of i to that of j,
      counterclockwise from the right, when the centres are at most ``max_distance`` diagonals of
      the picture apart;
    * 0: no edge.

    Equal boxes overlap. A region has no edge to itself.

    Args:
        boxes: (..., N, 4): x1, y1, x2, y2 with y pointing down.
        picture_size: Width and height in the unit of the boxes. The default is for boxes given
            as fractions of the picture's sides: both sides then count the same.
        min_overlap: Least intersection over union of class 3.
        max_distance: Greatest distance of an edge without overlap, in diagonals.

    Returns:
        (..., N, N) int64.
    """
    x1, y1, x2, y2 = boxes.double().unbind(-1)

    def pairs(corner: Tensor) -> tuple[Tensor, Tensor]:
        return corner.unsqueeze(-1), corner.unsqueeze(-2)

    (left, left_j), (top, top_j) = pairs(x1), pairs(y1)
    (right, right_j), (bottom, bottom_j) = pairs(x2), pairs(y2)
    includes = (left <= left_j) & (top <= top_j) & (right >= right_j) & (bottom >= bottom_j)
    equal = includes & includes.transpose(-1, -2)
    wide = (torch.minimum(right, right_j) - torch.maximum(left, left_j)).clamp(min=0)
    high = (torch.minimum(bottom, bottom_j) - torch.maximum(top, top_j)).clamp(min=0)
    shared = wide * high
    area, area_j = pairs((x2 - x1) * (y2 - y1))
    overlaps = shared >= min_overlap * (area + area_j - shared)
    dx = ((left_j + right_j) - (left + right)) / 2
    dy = ((top + bottom) - (top_j + bottom_j)) / 2
    near = torch.hypot(dx, dy) <= max_distance * math.hypot(*picture_size)
    sector = torch.ceil(torch.atan2(dy, dx) / _SECTOR).long()
    labels = torch.where(sector <= 0, sector + 8, sector) + _OVERLAP  # an angle of 0 is a full turn
    labels = labels.where(near, torch.zeros_like(labels))
    labels = labels.masked_fill(overlaps, _OVERLAP)
    labels = labels.masked_fill(includes.transpose(-1, -2) & ~equal, _COVER)
    labels = labels.masked_fill(includes & ~equal, _INSIDE)
    own = torch.eye(boxes.shape[-2], dtype=torch.bool, device=boxes.device)
    return labels.masked_fill(own, 0)
