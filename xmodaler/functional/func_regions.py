"""Where regions lie in a picture that is cropped, mirrored and cut into patches.

Boxes are ``x, y, width, height`` in pixels, as in annotations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import numpy as np

from xmodaler.utils.errors import UserError

__all__ = [
    "Box",
    "CropView",
    "box_in_pixels",
    "centre_box",
    "clip_box",
    "draw_view",
    "keep_rows",
    "overlap_of_boxes",
    "overlap_of_predictions",
    "patch_mask",
]

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class CropView:
    """A part of a picture, possibly mirrored, brought to a square.

    Attributes:
        left, top, right, bottom: The part, in pixels.
        mirrored: Whether left and right change places.
        size: Side of the square.
    """

    left: int
    top: int
    right: int
    bottom: int
    mirrored: bool
    size: int

    def place(self, box: Sequence[float], least: float = 0.0) -> Box | None:
        """A box of the picture within the square.

        Args:
            box: In the picture, with positive sides.
            least: The share of its area that must be seen at least; it must exceed this.

        Returns:
            What is seen of it, or None if that is too little.
        """
        x, y, width, height = box
        left, top = max(self.left, x), max(self.top, y)
        right, bottom = min(self.right, x + width), min(self.bottom, y + height)
        if right <= left or bottom <= top:
            return None
        if (right - left) * (bottom - top) / (width * height) <= least:
            return None
        x, y, width, height = left - self.left, top - self.top, right - left, bottom - top
        wide, high = self.right - self.left, self.bottom - self.top
        if self.mirrored:
            x = wide - x - width
        across, down = self.size / wide, self.size / high
        return across * x, down * y, across * width, down * height


def clip_box(box: Sequence[float], width: int, height: int) -> Box:
    """A box in whole pixels and within its picture.

    Args:
        box: Of an annotation.
        width: Of the picture.
        height: Of the picture.

    Raises:
        UserError: It is no box, or nothing of it lies in the picture.
    """
    try:
        x, y, wide, high = (int(side) for side in box)
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"the box {box} is not x, y, width, height in pixels") from None
    left, top = max(0, x), max(0, y)
    right, bottom = min(width, x + wide), min(height, y + high)
    if right <= left or bottom <= top:
        raise UserError(f"the box {list(box)} covers nothing of a picture of {width} x {height}")
    return left, top, right - left, bottom - top


def draw_view(
    box: Sequence[int], width: int, height: int, size: int, rng: Random, may_mirror: bool = True
) -> CropView:
    """A random part of a picture that holds a box, mirrored with probability one half.

    Args:
        box: In whole pixels within the picture, as :func:`clip_box` gives it.
        width: Of the picture.
        height: Of the picture.
        size: Side of the square to which the part is brought.
        rng: Where chance comes from; Python's module ``random`` will do.
        may_mirror: False where a text speaks of left or right.
    """
    x, y, wide, high = box
    left, top = rng.randint(0, x), rng.randint(0, y)
    right, bottom = rng.randint(x + wide, width), rng.randint(y + high, height)
    mirrored = rng.random() < 0.5 and may_mirror
    return CropView(left, top, right, bottom, mirrored, size)


def centre_box(box: Sequence[float], width: float, height: float) -> Box:
    """Centre x, centre y, width and height as shares of a picture."""
    x, y, wide, high = box
    return (x + wide / 2) / width, (y + high / 2) / height, wide / width, high / height


def box_in_pixels(box: Sequence[float], width: float, height: float) -> Box:
    """The box x, y, width, height of a picture that :func:`centre_box` describes by shares."""
    x, y, wide, high = box
    return (x - wide / 2) * width, (y - high / 2) * height, wide * width, high * height


def patch_mask(box: Sequence[float], size: int, patch: int) -> np.ndarray:
    """Which patches a box touches.

    Args:
        box: In a square picture.
        size: Its side.
        patch: Side of a patch.

    Returns:
        (1 + P,) bool, row by row; entry 0, which stands for the region itself, is True.
    """
    side = size // patch
    x, y, width, height = box
    columns, rows = _cells(x, width, patch, side), _cells(y, height, patch, side)
    grid = np.zeros((side, side), dtype=bool)
    grid[rows, columns] = True
    return np.concatenate([[True], grid.ravel()])


def _cells(start: float, length: float, patch: int, side: int) -> slice:
    first = min(max(math.floor(start / patch), 0), side - 1)
    return slice(first, min(max(math.ceil((start + length) / patch), first + 1), side))


def keep_rows(number: int, wanted: int, rng: Random) -> list[int]:
    """As many rows as a batch has, of those that there are.

    Of too many some are drawn. Too few are followed by some of them again, drawn as well; where
    even twice are too few, they are repeated in order.

    Args:
        number: Rows there are.
        wanted: Rows the batch has.
        rng: Where chance comes from.
    """
    if number >= wanted:
        return rng.sample(range(number), wanted)
    if number == 0:
        raise UserError("a batch of regions needs one region at least")
    missing = wanted - number
    if missing <= number:
        return [*range(number), *rng.sample(range(number), missing)]
    return [row % number for row in range(wanted)]


def overlap_of_boxes(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union, 0 to 1.

    Args:
        first: A box.
        second: A box.
    """
    sides = [
        max(0.0, min(first[i] + first[i + 2], second[i] + second[i + 2]) - max(first[i], second[i]))
        for i in (0, 1)
    ]
    shared = sides[0] * sides[1]
    union = first[2] * first[3] + second[2] * second[3] - shared
    return shared / union if union > 0 else 0.0


def overlap_of_predictions(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union as the accuracies of grounding are published.

    The intersection is measured from first to last pixel, the areas are not; boxes of one pixel
    have no intersection (MAttNet's evaluation of RefCOCO, Yu et al., CVPR 2018).

    Args:
        first: A box.
        second: A box.
    """
    low = [max(a, b) for a, b in zip(first[:2], second[:2], strict=True)]
    high = [min(first[i] + first[i + 2] - 1, second[i] + second[i + 2] - 1) for i in (0, 1)]
    shared = 0.0
    if low[0] < high[0] and low[1] < high[1]:
        shared = (high[0] - low[0] + 1) * (high[1] - low[1] + 1)
    union = first[2] * first[3] + second[2] * second[3] - shared
    return shared / union if union > 0 else 0.0
