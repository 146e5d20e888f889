"""Features of a scene as a detector might give them: noisy vectors of regions, and more."""

from __future__ import annotations

import numpy as np

from xmodaler.datasets.synthetic.concepts import (
    COLOURS,
    GROUND_COLOURS,
    KINDS,
    PATTERNS,
    SIZES,
)
from xmodaler.datasets.synthetic.scene import Scene

FEATURE_DIM = 96
NOISE = 0.15
# What an attribute detector knows, in the order of its outputs.
ATTRIBUTES: tuple[str, ...] = (*KINDS, *COLOURS, *SIZES, *PATTERNS, *GROUND_COLOURS)
_FACTS = len(ATTRIBUTES) + 3  # every attribute, and x, y, radius


def _projection() -> np.ndarray:
    """The fixed random map from facts to feature vectors, (facts, FEATURE_DIM)."""
    rng = np.random.Generator(np.random.PCG64(20))
    return rng.standard_normal((_FACTS, FEATURE_DIM)) / np.sqrt(4.0)


PROJECTION = _projection()


def region_features(scene: Scene, side: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The arrays of one feature file.

    Args:
        scene: The scene; its regions are the shapes and, last, the ground.
        side: Side of the picture in pixels.
        rng: Source of the noise.

    Returns:
        ``features`` (R, FEATURE_DIM) float32, ``boxes`` (R, 4) float32 as x1, y1, x2, y2 in
        pixels, ``cls_prob`` (R, kinds + 1) float32 with the ground as class 0, ``image_h`` and
        ``image_w`` (1,).
    """
    regions = len(scene.shapes) + 1
    facts, boxes = np.zeros((regions, _FACTS)), np.zeros((regions, 4))
    scores = rng.normal(0.0, 0.5, (regions, len(KINDS) + 1))
    for row, shape in enumerate(scene.shapes):
        facts[row, [ATTRIBUTES.index(word) for word in shape.look]] = 1.0
        facts[row, -3:] = 2 * shape.x - 1, 2 * shape.y - 1, 4 * shape.radius
        x, y, width, height = shape.box(side)
        boxes[row] = x, y, x + width, y + height
        scores[row, 1 + KINDS.index(shape.kind)] += 5.0
    ground = (scene.ground.pattern, scene.ground.colour)
    facts[-1, [ATTRIBUTES.index(word) for word in ground]] = 1.0
    boxes[-1] = 0, 0, side, side
    scores[-1, 0] += 5.0
    # Not `@`: the linear algebra library adds in an order that depends on the machine.
    clean = np.einsum("rf,fd->rd", facts, PROJECTION)
    odds = np.exp(scores - scores.max(1, keepdims=True))
    return {
        "features": (clean + NOISE * rng.standard_normal(clean.shape)).astype(np.float32),
        "boxes": np.clip(boxes, 0, side).astype(np.float32),
        "cls_prob": (odds / odds.sum(1, keepdims=True)).astype(np.float32),
        "image_h": np.array([side]),
        "image_w": np.array([side]),
    }


def attribute_scores(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Probability of each of ``ATTRIBUTES`` being in the picture, float32."""
    present = {word for shape in scene.shapes for word in shape.look}
    present |= {scene.ground.pattern, scene.ground.colour}
    truth = np.array([word in present for word in ATTRIBUTES], dtype=np.float64)
    score = np.where(truth, rng.beta(8, 2, truth.shape), rng.beta(1, 12, truth.shape))
    return score.astype(np.float32)
