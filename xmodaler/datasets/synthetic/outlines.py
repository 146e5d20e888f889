"""Outlines of the shape kinds: closed polygons inside the unit circle."""

from __future__ import annotations

import math

import numpy as np

from xmodaler.datasets.synthetic.concepts import KINDS


def _fit(corners: list[tuple[float, float]]) -> np.ndarray:
    """Centres the polygon's box on the origin and scales its farthest corner to distance 1."""
    points = np.asarray(corners, dtype=np.float64)
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    return points / np.linalg.norm(points, axis=1).max()


def _arc(radius: float, start: float, stop: float, steps: int) -> list[tuple[float, float]]:
    angles = [start + (stop - start) * step / steps for step in range(steps + 1)]
    return [(radius * math.cos(angle), radius * math.sin(angle)) for angle in angles]


def _regular(count: int, inner: float | None = None) -> list[tuple[float, float]]:
    """A regular polygon with a corner up; with `inner`, a star with inner corners that far out."""
    steps = count if inner is None else 2 * count
    radii = [1.0 if inner is None or step % 2 == 0 else inner for step in range(steps)]
    angles = [2 * math.pi * step / steps - math.pi / 2 for step in range(steps)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _heart() -> list[tuple[float, float]]:
    angles = [2 * math.pi * step / 40 for step in range(40)]
    return [
        (
            16 * math.sin(a) ** 3,
            -(13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a)),
        )
        for a in angles
    ]


def _cross(arm: float = 0.36) -> list[tuple[float, float]]:
    quarter = [(arm, 1.0), (arm, arm), (1.0, arm)]
    corners = []
    for _ in range(4):
        corners += quarter
        quarter = [(y, -x) for x, y in quarter]
    return corners


def _crescent() -> list[tuple[float, float]]:
    """The unit disc less a disc of radius 0.8 that is shifted by 0.55 to the right."""
    shift, bite = 0.55, 0.8
    tip_x = (1 - bite**2 + shift**2) / (2 * shift)
    tip = math.acos(tip_x)
    inner = math.atan2(math.sin(tip), tip_x - shift)
    outside = _arc(1.0, tip, 2 * math.pi - tip, 28)
    inside = [(x + shift, y) for x, y in _arc(bite, 2 * math.pi - inner, inner, 24)]
    return outside + inside[1:-1]


OUTLINES: dict[str, np.ndarray] = {
    "circle": _fit(_arc(1.0, 0.0, 2 * math.pi, 36)[:-1]) * 0.94,
    "square": _fit([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": _fit(_regular(3)),
    "star": _fit(_regular(5, inner=0.45)),
    "heart": _fit(_heart()),
    "cross": _fit(_cross()),
    "ring": _fit(_arc(1.0, 0.0, 2 * math.pi, 36)[:-1]),
    "crescent": _fit(_crescent()),
}

assert tuple(OUTLINES) == KINDS


def outline_area(kind: str) -> float:
    """Area inside the outline of a shape with radius 1 (shoelace formula)."""
    x, y = OUTLINES[kind].T
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)
