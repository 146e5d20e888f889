"""Random scenes: first what is in them, then where it lies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from xmodaler.datasets.synthetic.chance import RandomChooser, generator
from xmodaler.datasets.synthetic.concepts import (
    COLOURS,
    GROUND_COLOURS,
    KINDS,
    PATTERNS,
    RADII,
    RING_HOLE,
)
from xmodaler.datasets.synthetic.scene import Ground, Scene, Shape, split_of

# How many shapes of each look: one entry a group, the most frequent arrangements first.
ARRANGEMENTS: list[tuple[float, tuple[int, ...]]] = [
    (0.26, (1,)),
    (0.46, (1, 1)),
    (0.10, (2,)),
    (0.05, (3,)),
    (0.03, (1, 1, 1)),
    (0.03, (2, 1)),
    (0.015, (4,)),
    (0.015, (2, 2)),
    (0.01, (2, 1, 1)),
    (0.01, (3, 1)),
    (0.01, (5,)),
    (0.005, (4, 1)),
    (0.005, (3, 2)),
]
MAX_BIG = 3  # more big shapes than this do not fit side by side
RIM_GAP = 0.02  # smallest gap between two rims and between a rim and the picture's edge
TRIES = 60

# Ways to part the picture between the first group and the others, as (axis, first group in front).
PARTINGS: list[tuple[float, tuple[str, bool] | None]] = [
    (0.28, ("x", True)),
    (0.28, ("x", False)),
    (0.17, ("y", True)),
    (0.17, ("y", False)),
    (0.10, None),
]


@dataclass(frozen=True)
class Group:
    """Shapes that look the same."""

    kind: str
    colour: str
    size: str
    count: int
    in_ring: bool = False  # lies in the hole of the first group's ring


def sample_scene(seed: int, split: str, index: int) -> Scene:
    """Scene number `index` of a split: the same for the same arguments, and owned by that split."""
    chooser = RandomChooser(generator(seed, split, index, "scene"))
    while True:
        groups, ground = _sample_contents(chooser)
        looks = tuple(
            Shape(g.kind, g.colour, g.size, 0.5, 0.5, 0.1, 0.0)
            for g in groups
            for _ in range(g.count)
        )
        if split_of(Scene(looks, ground).signature()) != split:
            continue
        shapes = _lay_out(groups, chooser)
        if shapes is not None:
            return Scene(shapes, ground)


def sample_crowd(seed: int, split: str, index: int) -> Scene:
    """A scene of three or four shapes, some of one kind or colour, owned by the split."""
    chooser = RandomChooser(generator(seed, split, index, "crowds"))
    while True:
        ground = Ground(chooser.one_of(tuple(GROUND_COLOURS)), chooser.one_of(PATTERNS))
        groups = _sample_crowd_groups(chooser)
        shapes = _lay_out(groups, chooser)
        if shapes is not None and split_of(Scene(shapes, ground).signature()) == split:
            return Scene(shapes, ground)


def _sample_crowd_groups(chooser: RandomChooser) -> list[Group]:
    first = Group(chooser.one_of(KINDS), chooser.one_of(tuple(COLOURS)), "big", 1)
    groups, num_big = [first], 1
    for number in range(chooser.pick([(0.6, 2), (0.4, 3)])):
        # The second is of the first one's kind, so that the kind alone never says who is meant.
        like_first = number == 0 or chooser.rng.random() < 0.3
        kind = first.kind if like_first else chooser.one_of(KINDS)
        colour = first.colour if chooser.rng.random() < 0.3 else chooser.one_of(tuple(COLOURS))
        size = "big" if num_big < MAX_BIG - 1 and chooser.rng.random() < 0.5 else "small"
        num_big += size == "big"
        groups.append(Group(kind, colour, size, 1))
    return groups


def _sample_contents(chooser: RandomChooser) -> tuple[list[Group], Ground]:
    ground = Ground(chooser.one_of(tuple(GROUND_COLOURS)), chooser.one_of(PATTERNS))
    counts = chooser.pick(ARRANGEMENTS)
    groups: list[Group] = []
    num_big = 0
    for count in counts:
        size = "big" if chooser.rng.random() < 0.5 and num_big + count <= MAX_BIG else "small"
        num_big += count * (size == "big")
        kind, colour = _sample_look(chooser, groups)
        groups.append(Group(kind, colour, size, count))
    if counts == (1, 1) and chooser.rng.random() < 0.14:
        kind, colour = _sample_look(chooser, [])
        groups = [
            Group("ring", groups[0].colour, "big", 1),
            Group(kind, colour, "small", 1, in_ring=True),
        ]
    return groups, ground


def _sample_look(chooser: RandomChooser, groups: list[Group]) -> tuple[str, str]:
    """A kind and a colour that no earlier group has together; sharing one of the two is welcome."""
    while True:
        kind, colour = chooser.one_of(KINDS), chooser.one_of(tuple(COLOURS))
        if groups and chooser.rng.random() < 0.15:
            kind = groups[0].kind
        if all((kind, colour) != (group.kind, group.colour) for group in groups):
            return kind, colour


def _lay_out(groups: list[Group], chooser: RandomChooser) -> tuple[Shape, ...] | None:
    """Puts the groups in random order side by side without touching; None if there was no room."""
    parting = chooser.pick(PARTINGS) if len(groups) > 1 else None
    shapes: list[Shape] = []
    for number, group in enumerate(groups):
        for _ in range(group.count):
            for _ in range(TRIES):
                shape = _place(group, number, parting, shapes, chooser)
                if shape is not None:
                    shapes.append(shape)
                    break
            else:
                return None
    return tuple(shapes)


def _place(
    group: Group,
    number: int,
    parting: tuple[str, bool] | None,
    others: list[Shape],
    chooser: RandomChooser,
) -> Shape | None:
    """One shape at a random place, or None if that place is taken or on the wrong side."""
    radius = chooser.uniform(*RADII[group.size])
    angle = chooser.uniform(-0.22, 0.22)
    if group.in_ring:
        ring = others[0]
        slack = RING_HOLE * ring.radius - radius
        x, y = (centre + slack * chooser.uniform(-0.6, 0.6) for centre in (ring.x, ring.y))
        return Shape(group.kind, group.colour, group.size, x, y, radius, angle)
    edge = radius + RIM_GAP
    x, y = chooser.uniform(edge, 1 - edge), chooser.uniform(edge, 1 - edge)
    if parting is not None:
        axis, first_in_front = parting
        in_front = (number == 0) == first_in_front
        if ((x if axis == "x" else y) < 0.5) != in_front:
            return None
    for other in others:
        dx, dy = abs(x - other.x), abs(y - other.y)
        if _touch(dx, dy, radius + other.radius):
            return None
        # People do not say "left of" or "above" along a diagonal, so pairs of shapes avoid it.
        if len(others) == 1 and number == 1 and 0.75 < dx / max(dy, 1e-9) < 1.33:
            return None
    return Shape(group.kind, group.colour, group.size, x, y, radius, angle)


def _touch(dx: float, dy: float, radii: float) -> bool:
    return math.hypot(dx, dy) < radii + RIM_GAP


def fits(shapes: Sequence[Shape]) -> bool:
    """Whether shapes lie in the picture and apart from each other, or in the hole of a ring."""
    scene = Scene(tuple(shapes), Ground("", ""))
    for one, shape in enumerate(shapes):
        edge = shape.radius + RIM_GAP
        if not all(edge <= centre <= 1 - edge for centre in (shape.x, shape.y)):
            return False
        for other in range(one):
            far = not _touch(
                shape.x - shapes[other].x,
                shape.y - shapes[other].y,
                shape.radius + shapes[other].radius,
            )
            if not (far or scene.holds("inside", one, other) or scene.holds("around", one, other)):
                return False
    return True
