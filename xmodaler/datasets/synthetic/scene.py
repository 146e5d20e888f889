"""The truth behind a picture: shapes on a ground, and the facts that follow from where they are."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from xmodaler.datasets.synthetic.concepts import OPPOSITE, RELATIONS, RING_HOLE, SPLITS
from xmodaler.datasets.synthetic.outlines import OUTLINES, outline_area

NEAR_GAP = 0.075  # two shapes whose rims are closer than this are "next to" each other
CLEAR_SHIFT = 0.05  # a shift below this is not called left, right, above or below


@dataclass(frozen=True)
class Shape:
    """One shape.

    Lengths are fractions of the picture's side, y grows downwards, the angle is in radians.
    """

    kind: str
    colour: str
    size: str
    x: float
    y: float
    radius: float
    angle: float

    @property
    def look(self) -> tuple[str, str, str]:
        """What the shape looks like wherever it is: `(size, colour, kind)`."""
        return (self.size, self.colour, self.kind)

    def outline(self) -> np.ndarray:
        """Corners `(P, 2)` of the outer outline, as fractions of the picture's side."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        corners = OUTLINES[self.kind] @ np.array([[cos, sin], [-sin, cos]])
        return corners * self.radius + np.array([self.x, self.y])

    def box(self, side: int) -> tuple[float, float, float, float]:
        """Tight box `(x, y, width, height)` in pixels of a picture with the given side."""
        corners = self.outline() * side
        low, high = corners.min(axis=0), corners.max(axis=0)
        return tuple(round(float(v), 2) for v in (*low, *(high - low)))

    def area(self, side: int) -> float:
        """Painted area in square pixels."""
        filled = outline_area(self.kind) * (self.radius * side) ** 2
        return round(filled * (1 - RING_HOLE**2 if self.kind == "ring" else 1.0), 2)


@dataclass(frozen=True)
class Ground:
    """What the shapes lie on."""

    colour: str
    pattern: str


@dataclass(frozen=True)
class Scene:
    """Some shapes on a ground, with the facts that can be said of them."""

    shapes: tuple[Shape, ...]
    ground: Ground

    def groups(self) -> list[tuple[int, ...]]:
        """Indices of the shapes, grouped by look, in order of first appearance."""
        by_look: dict[tuple[str, str, str], list[int]] = {}
        for index, shape in enumerate(self.shapes):
            by_look.setdefault(shape.look, []).append(index)
        return [tuple(members) for members in by_look.values()]

    def select(
        self, *, kind: str | None = None, colour: str | None = None, size: str | None = None
    ) -> tuple[int, ...]:
        """Indices of the shapes that have all the given properties (None: any)."""
        return tuple(
            index
            for index, shape in enumerate(self.shapes)
            if kind in (None, shape.kind)
            and colour in (None, shape.colour)
            and size in (None, shape.size)
        )

    def holds(self, relation: str, one: int, other: int) -> bool:
        """Whether shape `one` stands in `relation` to shape `other`.

        Directions go by the centres along the dominant axis; `next_to` by the gap between the rims;
        `inside` means wholly within the hole of a ring, `around` is its converse.
        """
        if relation in ("right_of", "below", "around"):
            return self.holds(OPPOSITE[relation], other, one)
        a, b = self.shapes[one], self.shapes[other]
        dx, dy = b.x - a.x, b.y - a.y
        if relation == "inside":
            return b.kind == "ring" and math.hypot(dx, dy) + a.radius <= RING_HOLE * b.radius
        if self.holds("inside", one, other) or self.holds("inside", other, one):
            return False
        if relation == "left_of":
            return dx > CLEAR_SHIFT and abs(dx) >= abs(dy)
        if relation == "above":
            return dy > CLEAR_SHIFT and abs(dy) > abs(dx)
        if relation == "next_to":
            return math.hypot(dx, dy) - a.radius - b.radius < NEAR_GAP
        raise KeyError(relation)

    def holds_between(self, relation: str, ones: tuple[int, ...], others: tuple[int, ...]) -> bool:
        """Whether every shape of `ones` stands in `relation` to every shape of `others`."""
        return all(self.holds(relation, one, other) for one in ones for other in others)

    def relation_labels(self) -> np.ndarray:
        """Labels `(R, R)` int64, an index into `RELATIONS` for every ordered pair of regions.

        The regions are the shapes and, last, the ground: R = shapes + 1.
        """
        count = len(self.shapes)
        labels = np.zeros((count + 1, count + 1), dtype=np.int64)
        for one in range(count):
            labels[one, count] = RELATIONS.index("on_ground")
            labels[count, one] = RELATIONS.index("ground_of")
            for other in range(count):
                if one != other:
                    labels[one, other] = RELATIONS.index(self._relation_name(one, other))
        return labels

    def _relation_name(self, one: int, other: int) -> str:
        for relation in ("inside", "around"):
            if self.holds(relation, one, other):
                return relation
        near = "near_" if self.holds("next_to", one, other) else ""
        for relation in ("left_of", "right_of", "above", "below"):
            if self.holds(relation, one, other):
                return near + relation
        return "none"

    def place(self, index: int) -> tuple[str, str]:
        """The third of the picture that holds the shape's centre, such as `("top", "left")`."""
        shape = self.shapes[index]
        row = ("top", "middle", "bottom")[min(2, int(shape.y * 3))]
        column = ("left", "middle", "right")[min(2, int(shape.x * 3))]
        return row, column

    def signature(self) -> str:
        """What is in the scene, wherever it lies; no two splits share a signature."""
        looks = sorted("-".join(shape.look) for shape in self.shapes)
        return "|".join([f"{self.ground.pattern}-{self.ground.colour}", *looks])

    def to_json(self) -> dict[str, Any]:
        """Plain data with a fixed order of keys."""
        return {"ground": asdict(self.ground), "shapes": [asdict(shape) for shape in self.shapes]}

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Scene:
        """The inverse of `to_json`."""
        return cls(
            shapes=tuple(Shape(**shape) for shape in record["shapes"]),
            ground=Ground(**record["ground"]),
        )


def split_of(signature: str) -> str:
    """The split that owns a signature: of ten equal parts, eight are train, one val, one test.

    The owner is a property of the scene alone, so that splits are disjoint whatever the seed and
    the number of pictures, also between two data sets made separately.
    """
    digest = hashlib.blake2b(signature.encode(), digest_size=8).digest()
    return {8: SPLITS[1], 9: SPLITS[2]}.get(int.from_bytes(digest, "big") % 10, SPLITS[0])


def dump_line(record: dict[str, Any]) -> str:
    """One JSON line, keys in the order in which they were put."""
    return json.dumps(record, ensure_ascii=False, separators=(", ", ": "))
