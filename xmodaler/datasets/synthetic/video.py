"""Short videos: the shapes of a scene move, grow, shrink or blink."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from PIL import Image

from xmodaler.datasets.synthetic.captions import CAPTIONS_PER_SCENE
from xmodaler.datasets.synthetic.chance import (
    Chooser,
    RandomChooser,
    UsualChooser,
    generator,
)
from xmodaler.datasets.synthetic.language import ENGLISH, Language
from xmodaler.datasets.synthetic.motions import Motions, move_scene
from xmodaler.datasets.synthetic.plans import Mention, Plan
from xmodaler.datasets.synthetic.render import Paint, add_noise, paint
from xmodaler.datasets.synthetic.scene import Scene

FRAMES = (8, 16)  # fewest and most frames
FRAME_MILLISECONDS = 120


def render_video(scene: Scene, motions: Motions, side: int, rng: np.random.Generator) -> np.ndarray:
    """Frames (T, side, side, 3) uint8 with T between 8 and 16."""
    count = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    look = Paint(scene, rng)
    frames = []
    for number in range(count):
        moved = move_scene(scene, motions, number / (count - 1), number)
        frames.append(add_noise(paint(moved, side, look), rng))
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
    motions: Motions,
    seed: int,
    split: str,
    index: int,
    count: int = CAPTIONS_PER_SCENE,
    language: Language = ENGLISH,
) -> list[tuple[Plan, str]]:
    """Varied captions of a video with the facts that each states."""
    chooser = RandomChooser(generator(seed, split, index, "video_captions"))
    plans = [_video_plan(scene, motions, chooser) for _ in range(count)]
    return [(plan, language.video_sentence(plan, chooser)) for plan in plans]


def oracle_video_caption(scene: Scene, motions: Motions, language: Language = ENGLISH) -> str:
    """What the grammar says most often of a video."""
    chooser = UsualChooser()
    return language.video_sentence(_video_plan(scene, motions, chooser), chooser)


def _video_plan(scene: Scene, motions: Motions, chooser: Chooser) -> Plan:
    groups = list(motions)
    both = len(groups) > 1 and chooser.pick([(0.6, False), (0.4, True)])
    mentions = []
    for members in groups[: 2 if both else 1]:
        shape = scene.shapes[members[0]]
        # A shape that grows or shrinks has no size to speak of.
        steady = motions[members].name not in ("grow", "shrink")
        unique = scene.select(kind=shape.kind, colour=shape.colour) == members
        sized = not unique or (steady and chooser.pick([(0.7, True), (0.3, False)]))
        mention = Mention(members, shape.kind, shape.colour, shape.size if sized else None)
        mentions.append(replace(mention, motion=motions[members].name))
    ground = scene.ground if chooser.pick([(0.8, False), (0.2, True)]) else None
    return Plan(tuple(mentions), ground=ground)
