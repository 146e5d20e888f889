"""Short videos: the shapes of a scene move, grow, shrink or blink."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
from PIL import Image

from xmodaler.datasets.synthetic.chance import Chooser, RandomChooser, generator
from xmodaler.datasets.synthetic.concepts import MOTIONS
from xmodaler.datasets.synthetic.language import ENGLISH
from xmodaler.datasets.synthetic.plans import Mention, Plan, salient_groups
from xmodaler.datasets.synthetic.render import Paint, add_noise, paint
from xmodaler.datasets.synthetic.scene import Scene, Shape

FRAMES = (8, 16)  # fewest and most frames
FRAME_MILLISECONDS = 120
TRAVEL = 0.45  # of the picture's side
DIRECTIONS = {
    "move_left": (-1, 0),
    "move_right": (1, 0),
    "move_up": (0, -1),
    "move_down": (0, 1),
}


def sample_motions(scene: Scene, seed: int, split: str, index: int) -> dict[tuple[int, ...], str]:
    """A motion for each group; at least the most salient one is not still."""
    chooser = RandomChooser(generator(seed, split, index, "motion"))
    motions: dict[tuple[int, ...], str] = {}
    for number, members in enumerate(salient_groups(scene)):
        moving = number == 0 or (number == 1 and chooser.rng.random() < 0.4)
        motions[members] = chooser.one_of(MOTIONS[1:]) if moving else "still"
    return motions


def render_video(
    scene: Scene, motions: dict[tuple[int, ...], str], side: int, rng: np.random.Generator
) -> np.ndarray:
    """Frames (T, side, side, 3) uint8 with T between 8 and 16."""
    count = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    look = Paint(scene, rng)
    frames = []
    for number in range(count):
        moved = list(scene.shapes)
        for members, motion in motions.items():
            for index in members:
                moved[index] = _move(scene.shapes[index], motion, number / (count - 1), number)
        canvas = paint(Scene(tuple(moved), scene.ground), side, look)
        frames.append(add_noise(canvas, rng))
    return np.stack(frames)


def encode_video(frames: np.ndarray) -> bytes:
    """A lossless animated PNG, the same bytes for the same frames."""
    pictures = [Image.fromarray(frame) for frame in frames]
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="PNG",
        save_all=True,
        append_images=pictures[1:],
        duration=FRAME_MILLISECONDS,
        compress_level=4,
    )
    return buffer.getvalue()


def sample_video_captions(
    scene: Scene,
    motions: dict[tuple[int, ...], str],
    seed: int,
    split: str,
    index: int,
    count: int = 5,
) -> list[tuple[Plan, str]]:
    """Varied captions of a video with the facts that each states."""
    chooser = RandomChooser(generator(seed, split, index, "video_captions"))
    plans = [_video_plan(scene, motions, chooser) for _ in range(count)]
    return [(plan, ENGLISH.video_sentence(plan, chooser)) for plan in plans]


def _video_plan(scene: Scene, motions: dict[tuple[int, ...], str], chooser: Chooser) -> Plan:
    groups = list(motions)
    both = len(groups) > 1 and chooser.pick([(0.6, False), (0.4, True)])
    mentions = []
    for members in groups[: 2 if both else 1]:
        shape = scene.shapes[members[0]]
        # A shape that grows or shrinks has no size to speak of.
        steady = motions[members] not in ("grow", "shrink")
        unique = scene.select(kind=shape.kind, colour=shape.colour) == members
        sized = not unique or (steady and chooser.pick([(0.7, True), (0.3, False)]))
        mention = Mention(members, shape.kind, shape.colour, shape.size if sized else None)
        mentions.append(replace(mention, motion=motions[members]))
    ground = scene.ground if chooser.pick([(0.8, False), (0.2, True)]) else None
    return Plan(tuple(mentions), ground=ground)


def _move(shape: Shape, motion: str, time: float, frame: int) -> Shape:
    """The shape at a time between 0 and 1; at 0.5 it is where the scene says."""
    if motion in DIRECTIONS:
        dx, dy = DIRECTIONS[motion]
        shift = (time - 0.5) * TRAVEL
        return replace(shape, x=shape.x + dx * shift, y=shape.y + dy * shift)
    if motion in ("grow", "shrink"):
        exponent = (time - 0.5) * (1 if motion == "grow" else -1)
        return replace(shape, radius=shape.radius * math.exp(1.4 * exponent))
    if motion == "blink" and frame % 4 >= 2:
        return replace(shape, radius=0.0)
    return shape
