"""Position tables for another grid of patches."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xmodaler.utils.errors import UserError

__all__ = ["resize_grid_table", "resize_position_rows", "resize_relative_table"]

EXTRA_ROWS = 3
"""Rows of a BEiT table behind the offsets: class to patch, patch to class, class to class."""


def resize_relative_table(table: Tensor, side: int) -> Tensor:
    """A BEiT table of relative positions for another grid, by geometric interpolation.

    The offsets of the old table are laid out at distances that grow by a factor q, so that the
    old number of them covers the new range; a bicubic spline through them is read at the new
    offsets (BEiT, Bao et al. 2022; as X²-VLM, Zeng et al. 2022, resizes).

    Args:
        table: (s * s + 3, heads), s = 2 * W - 1 for W x W patches.
        side: d = 2 * W' - 1 of the new grid.

    Returns:
        (d * d + 3, heads), float32; the last three rows are kept.
    """
    offsets, extra = table[:-EXTRA_ROWS], table[-EXTRA_ROWS:]
    old = math.isqrt(offsets.shape[0])
    if old * old != offsets.shape[0] or side % 2 == 0:
        raise UserError(
            f"a table of {table.shape[0]} rows for a side of {side}: it needs s * s + 3 rows and "
            "an odd side"
        )
    if old == side:
        return table
    places = _geometric_places(old, side)
    wanted = np.arange(-(side // 2), side // 2 + 1, dtype=np.float64)
    weights = torch.from_numpy(_spline_weights(places, wanted))
    values = offsets.double().T.reshape(-1, old, old)
    resized = weights @ values @ weights.T
    resized = resized.flatten(1).T.to(table.dtype)
    return torch.cat([resized.to(table.device), extra])


def _geometric_places(old: int, new: int) -> np.ndarray:
    """Where the old offsets lie: 0, +-1, +-(1 + q), +-(1 + q + q^2), ..."""
    count, reach = old // 2, new // 2
    low, high = 1.01, 1.5
    ratio = low
    while high - low > 1e-6:
        ratio = (low + high) / 2
        if (1 - ratio**count) / (1 - ratio) > reach:
            high = ratio
        else:
            low = ratio
    positive = np.cumsum(ratio ** np.arange(count, dtype=np.float64))
    return np.concatenate([-positive[::-1], [0.0], positive])


def _spline_weights(places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(m, n): what each of n given values counts at m wanted points.

    The spline passes through all values; its knots are the places without the second and the last
    but one. Points outside of the places take the value at the border.
    """
    degree = min(3, len(places) - 1)
    inner = places[2:-2] if degree == 3 else places[:0]
    knots = np.concatenate([[places[0]] * (degree + 1), inner, [places[-1]] * (degree + 1)])
    through = _basis(places, knots, degree)
    return _basis(wanted.clip(places[0], places[-1]), knots, degree) @ np.linalg.inv(through)


def _basis(points: np.ndarray, knots: np.ndarray, degree: int) -> np.ndarray:
    """B-splines at points (Cox-de Boor recursion), (points, len(knots) - degree - 1)."""
    number = len(knots) - degree - 1
    span = np.clip(np.searchsorted(knots, points, side="right") - 1, degree, number - 1)
    values = np.zeros((len(points), len(knots) - 1))
    values[np.arange(len(points)), span] = 1.0
    for order in range(1, degree + 1):
        width = len(knots) - 1 - order
        start, end = knots[:width], knots[order : order + width]
        later_start, later_end = knots[1 : width + 1], knots[order + 1 : order + 1 + width]
        with np.errstate(divide="ignore", invalid="ignore"):
            rising = (points[:, None] - start) / (end - start)
            falling = (later_end - points[:, None]) / (later_end - later_start)
        rising = np.nan_to_num(rising, nan=0.0, posinf=0.0, neginf=0.0)
        falling = np.nan_to_num(falling, nan=0.0, posinf=0.0, neginf=0.0)
        values = rising * values[:, :width] + falling * values[:, 1 : width + 1]
    return values


def resize_grid_table(table: Tensor, side: int) -> Tensor:
    """A table of relative positions within a window (Swin), by bicubic interpolation.

    Args:
        table: (s * s, heads).
        side: The new s.

    Returns:
        (side * side, heads).
    """
    old = math.isqrt(table.shape[0])
    if old == side:
        return table
    grid = table.T.reshape(1, -1, old, old).float()
    resized = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
    return resized.flatten(2)[0].T.to(table.dtype)


def resize_position_rows(rows: Tensor, patches: int, prefix: int = 1) -> Tensor:
    """Learned positions of a square grid of patches, by bicubic interpolation.

    Args:
        rows: (prefix + P, D).
        patches: The new number P, a square.
        prefix: Rows in front that are kept, of class tokens.

    Returns:
        (prefix + patches, D).
    """
    if rows.shape[0] == prefix + patches:
        return rows
    kept, grid = rows[:prefix], rows[prefix:]
    old, new = math.isqrt(grid.shape[0]), math.isqrt(patches)
    if old * old != grid.shape[0] or new * new != patches:
        raise UserError(f"positions of {grid.shape[0]} patches for {patches}: both need be squares")
    grid = grid.T.reshape(1, -1, old, old).float()
    resized = F.interpolate(grid, size=(new, new), mode="bicubic", align_corners=False)
    return torch.cat([kept, resized.flatten(2)[0].T.to(rows.dtype)])
