"""All languages of the data set by their codes."""

from __future__ import annotations

from collections.abc import Mapping

from xmodaler.datasets.synthetic.captions import sample_captions
from xmodaler.datasets.synthetic.chance import RandomChooser, generator
from xmodaler.datasets.synthetic.east_asian import CHINESE, JAPANESE
from xmodaler.datasets.synthetic.european import FRENCH, GERMAN
from xmodaler.datasets.synthetic.language import ENGLISH, PictureLanguage
from xmodaler.datasets.synthetic.plans import Plan
from xmodaler.datasets.synthetic.scene import Scene

TONGUES: Mapping[str, PictureLanguage] = {
    "en": ENGLISH,
    "de": GERMAN,
    "fr": FRENCH,
    "zh": CHINESE,
    "ja": JAPANESE,
}


def translations(
    scene: Scene, seed: int, split: str, index: int, count: int
) -> list[dict[str, str]]:
    """Captions of a scene in every language; those of one number say the same.

    Args:
        scene: The scene.
        seed, split, index: Of the scene.
        count: How many captions, at most five.

    Returns:
        Texts by language; the English ones are those of
        :func:`~xmodaler.datasets.synthetic.sample_captions`.
    """
    chooser = RandomChooser(generator(seed, split, index, "translations"))
    return [
        {"en": english, **translate(plan, chooser)}
        for plan, english in sample_captions(scene, seed, split, index)[:count]
    ]


def translate(plan: Plan, chooser: RandomChooser) -> dict[str, str]:
    """A plan in every language but English."""
    return {
        code: tongue.sentence(plan, chooser) for code, tongue in TONGUES.items() if code != "en"
    }
