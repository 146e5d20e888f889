"""Captions of a scene as five people write them, and as the oracle does."""

from __future__ import annotations

from xmodaler.datasets.synthetic.chance import RandomChooser, UsualChooser, generator
from xmodaler.datasets.synthetic.language import ENGLISH, Language
from xmodaler.datasets.synthetic.plans import Plan, make_plan
from xmodaler.datasets.synthetic.scene import Scene

CAPTIONS_PER_SCENE = 5


def sample_captions(
    scene: Scene,
    seed: int,
    split: str,
    index: int,
    count: int = CAPTIONS_PER_SCENE,
    language: Language = ENGLISH,
) -> list[tuple[Plan, str]]:
    """Varied captions of a scene with the facts that each states."""
    chooser = RandomChooser(generator(seed, split, index, "captions"))
    plans = [make_plan(scene, chooser) for _ in range(count)]
    return [(plan, language.sentence(plan, chooser)) for plan in plans]


def oracle_caption(scene: Scene, language: Language = ENGLISH) -> str:
    """What the grammar says most often of the true scene: the mark that a model is held against."""
    chooser = UsualChooser()
    return language.sentence(make_plan(scene, chooser), chooser)
