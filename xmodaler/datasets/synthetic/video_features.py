"""Features of the frames of a video, as a recogniser that sees one frame at a time gives them."""

from __future__ import annotations

import numpy as np

from xmodaler.datasets.synthetic.concepts import COLOURS, GROUND_COLOURS, KINDS, PATTERNS, SIZES
from xmodaler.datasets.synthetic.features import NOISE
from xmodaler.datasets.synthetic.motions import Motions, move_scene
from xmodaler.datasets.synthetic.plans import MAX_MENTIONS, salient_groups
from xmodaler.datasets.synthetic.scene import Scene

FRAME_FEATURE_DIM = 192
_LOOKS: tuple[str, ...] = (*KINDS, *COLOURS, *SIZES)
_GROUNDS: tuple[str, ...] = (*PATTERNS, *GROUND_COLOURS)
_MOST_ALIKE = 5  # shapes in a group
_SLOT = len(_LOOKS) + _MOST_ALIKE + 3  # look, number of shapes, and x, y, radius
_FACTS = MAX_MENTIONS * _SLOT + len(_GROUNDS)


def _projection() -> np.ndarray:
    """The fixed random map from facts to feature vectors, (facts, FRAME_FEATURE_DIM)."""
    rng = np.random.Generator(np.random.PCG64(21))
    return rng.standard_normal((_FACTS, FRAME_FEATURE_DIM)) / np.sqrt(4.0)


PROJECTION = _projection()


def frame_features(
    scene: Scene, motions: Motions, frames: int, rng: np.random.Generator
) -> np.ndarray:
    """One noisy vector per frame: what is seen in it and where, but not what moves.

    A vector is a fixed linear map of facts. The groups of the scene have a part of the facts
    each, the most striking group first, in the same order in every frame: the look and the number
    of its shapes, their mean centre and their radius. A group that blinks has zeros while it is
    gone. The ground has the last part. What a group does shows only in how its part changes from
    frame to frame.

    Args:
        scene: The scene at rest.
        motions: What its groups do.
        frames: T, number of frames.
        rng: Source of the noise.

    Returns:
        float32 ``(T, FRAME_FEATURE_DIM)``.
    """
    facts = np.zeros((frames, _FACTS))
    for number in range(frames):
        moved = move_scene(scene, motions, number / (frames - 1), number)
        for slot, members in enumerate(salient_groups(scene)[:MAX_MENTIONS]):
            shapes = [moved.shapes[index] for index in members]
            if shapes[0].radius == 0:
                continue
            part = facts[number, slot * _SLOT : (slot + 1) * _SLOT]
            part[[_LOOKS.index(word) for word in shapes[0].look]] = 1.0
            part[len(_LOOKS) + len(members) - 1] = 1.0
            x, y, radius = (
                sum(getattr(shape, name) for shape in shapes) / len(shapes)
                for name in ("x", "y", "radius")
            )
            part[-3:] = 2 * x - 1, 2 * y - 1, 4 * radius
        for word in (scene.ground.pattern, scene.ground.colour):
            facts[number, MAX_MENTIONS * _SLOT + _GROUNDS.index(word)] = 1.0
    # Not `@`: the linear algebra library adds in an order that depends on the machine.
    clean = np.einsum("tf,fd->td", facts, PROJECTION)
    return (clean + NOISE * rng.standard_normal(clean.shape)).astype(np.float32)
