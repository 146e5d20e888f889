"""What the shapes of a video do, within the room that they have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from xmodaler.datasets.synthetic.chance import RandomChooser, generator
from xmodaler.datasets.synthetic.concepts import MOTIONS, RING_HOLE
from xmodaler.datasets.synthetic.plans import salient_groups
from xmodaler.datasets.synthetic.scene import Scene, Shape

DIRECTIONS: dict[str, tuple[int, int]] = {
    "move_left": (-1, 0),
    "move_right": (1, 0),
    "move_up": (0, -1),
    "move_down": (0, 1),
}
# The usual and the least length of a way: of the picture's side, or of the radius' logarithm.
TRAVEL = (0.45, 0.2)
GROWTH = (1.4, 0.8)
FARTHEST_GROWTH = 0.9  # the radius stays within this of the scene's, as a logarithm
STEP = 0.01  # in which room is measured


@dataclass(frozen=True)
class Motion:
    """What a group does, from the first frame to the last.

    Attributes:
        name: One of ``MOTIONS``.
        start, end: Where the way begins and ends; 0 is where the scene has the shapes. Fractions
            of the picture's side, or logarithms of the factor of the radius.
    """

    name: str
    start: float = 0.0
    end: float = 0.0

    def apply(self, shape: Shape, time: float, frame: int) -> Shape:
        """The shape at a time between 0 and 1 (and in a frame); radius 0 where it is not seen."""
        if self.name == "blink":
            return replace(shape, radius=0.0) if frame % 4 >= 2 else shape
        return _shifted(shape, self.name, self.start + (self.end - self.start) * time)


Motions = dict[tuple[int, ...], Motion]


def sample_motions(scene: Scene, seed: int, split: str, index: int) -> Motions:
    """A motion for each group; at least the most salient one is not still.

    Moving and growing shapes stay in the picture and never touch another shape.
    """
    chooser = RandomChooser(generator(seed, split, index, "motion"))
    motions: Motions = {}
    # Wherever the shapes that are not being decided on may be at some time.
    taken = {members: [scene.shapes[i] for i in members] for members in scene.groups()}
    for number, members in enumerate(salient_groups(scene)):
        moving = number == 0 or (number == 1 and chooser.rng.random() < 0.4)
        shapes = taken.pop(members)
        motion = Motion("still")
        if moving:
            others = [shape for group in taken.values() for shape in group]
            possible = [_fit(name, shapes, others) for name in MOTIONS if name != "still"]
            motion = chooser.one_of([fitting for fitting in possible if fitting is not None])
        motions[members] = motion
        taken[members] = _whole_way(shapes, motion)
    return motions


def motions_to_json(motions: Motions) -> list[dict[str, Any]]:
    """Plain data with a fixed order of keys."""
    return [{"members": list(members), **asdict(motion)} for members, motion in motions.items()]


def motions_from_json(records: list[dict[str, Any]]) -> Motions:
    """The inverse of :func:`motions_to_json`."""
    return {
        tuple(record["members"]): Motion(record["name"], record["start"], record["end"])
        for record in records
    }


def move_scene(scene: Scene, motions: Motions, time: float, frame: int) -> Scene:
    """The scene at a time between 0 and 1."""
    shapes = list(scene.shapes)
    for members, motion in motions.items():
        for index in members:
            shapes[index] = motion.apply(shapes[index], time, frame)
    return Scene(tuple(shapes), scene.ground)


def _shifted(shape: Shape, name: str, amount: float) -> Shape:
    if name in DIRECTIONS:
        dx, dy = DIRECTIONS[name]
        return replace(shape, x=shape.x + dx * amount, y=shape.y + dy * amount)
    if name in ("grow", "shrink"):
        return replace(shape, radius=shape.radius * math.exp(amount))
    return shape


def _fit(name: str, shapes: Sequence[Shape], others: Sequence[Shape]) -> Motion | None:
    """The motion with the longest way up to the usual that there is room for, if long enough."""
    if name == "blink":
        return Motion(name)
    grows = name in ("grow", "shrink")
    usual, least = GROWTH if grows else TRAVEL
    farthest = FARTHEST_GROWTH if grows else usual
    behind, ahead = (_room(name, shapes, others, sign, farthest) for sign in (-1, 1))
    if behind + ahead < least:
        return None
    start = -min(behind, max(usual / 2, usual - ahead))
    end = min(ahead, start + usual)
    return Motion(name, end, start) if name == "shrink" else Motion(name, start, end)


def _room(
    name: str, shapes: Sequence[Shape], others: Sequence[Shape], sign: int, farthest: float
) -> float:
    """How far the shapes can go to one side before one leaves the picture or touches another."""
    steps = round(farthest / STEP)
    for step in range(1, steps + 1):
        if not _is_clear([_shifted(shape, name, sign * step * STEP) for shape in shapes], others):
            return (step - 1) * STEP
    return steps * STEP


def _is_clear(shapes: Sequence[Shape], others: Sequence[Shape]) -> bool:
    for number, shape in enumerate(shapes):
        if not all(shape.radius <= centre <= 1 - shape.radius for centre in (shape.x, shape.y)):
            return False
        if any(_touch(shape, other) for other in (*shapes[:number], *others)):
            return False
    return True


def _touch(one: Shape, other: Shape) -> bool:
    distance = math.hypot(one.x - other.x, one.y - other.y)
    if distance > one.radius + other.radius:
        return False
    pairs = ((one, other), (other, one))
    return not any(
        ring.kind == "ring" and distance + inner.radius < RING_HOLE * ring.radius
        for ring, inner in pairs
    )


def _whole_way(shapes: Sequence[Shape], motion: Motion) -> list[Shape]:
    """The shapes at many moments of their way."""
    if motion.start == motion.end:
        return list(shapes)
    steps = math.ceil(abs(motion.end - motion.start) / STEP)
    return [motion.apply(shape, step / steps, 0) for step in range(steps + 1) for shape in shapes]
