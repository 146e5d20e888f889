"""Questions with four answers to choose from, and four reasons for the right one.

The wrong choices are what is true of other scenes, drawn as the right one was. A question whose
four draws are not all different is dropped rather than mended, so that each of its choices is
equally likely to be the right one for whoever does not see the picture.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodaler.datasets.synthetic.chance import RandomChooser, generator
from xmodaler.datasets.synthetic.files import write_text
from xmodaler.datasets.synthetic.question_language import DIRECTION_WORDS, ENGLISH_QUESTIONS
from xmodaler.datasets.synthetic.questions import DIRECTIONS
from xmodaler.datasets.synthetic.scene import Scene

CHOICES = 4
PER_PICTURE = 2
_DRAWS = 4  # attempts to find three other choices

Tokens = list[str | list[int]]


@dataclass(frozen=True)
class Fact:
    """Something true of some shapes of a scene.

    Attributes:
        topic: ``colour``, ``place`` or ``ground``.
        value: What is true: one option of the topic.
        members: The shapes it is said of.
        others: Shapes that it relates them to.
    """

    topic: str
    value: str
    members: tuple[int, ...]
    others: tuple[int, ...] = ()

    def question(self) -> Tokens:
        """Such as ``what color is [0] ?``."""
        verb, this = "are" if len(self.members) > 1 else "is", list(self.members)
        if self.topic == "colour":
            return ["what", "color", verb, this, "?"]
        if self.topic == "place":
            return ["where", verb, this, "?"]
        return ["what", "is", "behind", this, "?"]

    def answer(self, value: str) -> Tokens:
        """The statement that the fact has some value."""
        verb, this = "are" if len(self.members) > 1 else "is", list(self.members)
        return [this, verb, *self._predicate(value), "."]

    def rationale(self, value: str) -> Tokens:
        """The same as a reason for another statement of these shapes."""
        verb = "are" if len(self.members) > 1 else "is"
        return ["i", "see", list(self.members), "that", verb, *self._predicate(value), "."]

    def _predicate(self, value: str) -> Tokens:
        if self.topic == "place":
            return [*DIRECTION_WORDS[value].split(), list(self.others)]
        if self.topic == "ground":
            pattern, colour = value.split()
            return ["on", "a", pattern, colour, "background"]
        return [value]


def facts(scene: Scene, chooser: RandomChooser) -> list[Fact]:
    """What can be asked about one group of the scene, whose kind no other group has."""
    groups = [
        members
        for members in scene.groups()
        if scene.select(kind=scene.shapes[members[0]].kind) == members
    ]
    if not groups:
        return []
    members = chooser.one_of(groups)
    found = [
        Fact("colour", scene.shapes[members[0]].colour, members),
        Fact("ground", f"{scene.ground.pattern} {scene.ground.colour}", members),
    ]
    others = [group for group in groups if group != members]
    if others:
        other = chooser.one_of(others)
        holding = [name for name in DIRECTIONS if scene.holds_between(name, members, other)]
        # Beside each other is commoner than one above the other; people ask for both alike.
        rare = holding and (holding[0] in ("above", "below") or chooser.rng.random() < 0.6)
        if rare:
            found.append(Fact("place", holding[0], members, other))
    return found


class Pools:
    """The values that a topic has in the scenes of a split, each as often as it occurs."""

    def __init__(self, found: Sequence[Sequence[Fact]]) -> None:
        self._values: dict[str, list[str]] = defaultdict(list)
        for scene in found:
            for fact in scene:
                self._values[fact.topic].append(fact.value)

    def draw(self, fact: Fact, chooser: RandomChooser) -> tuple[list[str], int] | None:
        """Four different values in random order and the place of the true one, or None."""
        if fact.topic == "place":
            values = list(DIRECTIONS)
        else:
            values = [fact.value]
            values += [chooser.one_of(self._values[fact.topic]) for _ in range(CHOICES - 1)]
            if len(set(values)) < CHOICES:
                return None
        order = chooser.rng.permutation(CHOICES)
        values = [values[place] for place in order]
        return values, values.index(fact.value)


def sample_choices(scenes: Sequence[Scene], seed: int, split: str) -> list[tuple[int, dict]]:
    """The multiple-choice questions of a split.

    Returns:
        Number of the scene, and the fields of a VCR record that do not name files.
    """
    choosers = [
        RandomChooser(generator(seed, split, index, "choices")) for index in range(len(scenes))
    ]
    found = [facts(scene, chooser) for scene, chooser in zip(scenes, choosers, strict=True)]
    pools, records = Pools(found), []
    for index, (scene_facts, chooser) in enumerate(zip(found, choosers, strict=True)):
        made = 0
        for asked, reason in _pairs(scene_facts, chooser):
            answers, rationales = pools.draw(asked, chooser), pools.draw(reason, chooser)
            if answers is None or rationales is None or made == PER_PICTURE:
                continue
            made += 1
            record = {
                "question": asked.question(),
                "answer_choices": [asked.answer(value) for value in answers[0]],
                "answer_label": answers[1],
                "rationale_choices": [reason.rationale(value) for value in rationales[0]],
                "rationale_label": rationales[1],
            }
            records.append((index, record))
    return records


def _pairs(found: Sequence[Fact], chooser: RandomChooser) -> list[tuple[Fact, Fact]]:
    """Pairs of a fact to ask for and another as the reason, each pair several times."""
    pairs = [(one, other) for one in found for other in found if one is not other]
    order = [k for _ in range(_DRAWS) for k in chooser.rng.permutation(len(pairs))]
    return [pairs[k] for k in order]


def write_vcr(
    folder: Path, scenes: Sequence[Scene], image_ids: Sequence[int], seed: int, split: str
) -> None:
    """Write ``<split>.jsonl`` as VCR does; ``objects`` are the kinds in the order of the regions.

    Args:
        folder: Where to.
        scenes, image_ids: Of the split, in order.
        seed, split: Of the data set.
    """
    lines = []
    for number, (index, record) in enumerate(sample_choices(scenes, seed, split)):
        image_id = image_ids[index]
        names: dict[str, Any] = {
            "annot_id": f"{split}-{number}",
            "img_id": f"{split}-{index}",
            "img_fn": f"{split}/{image_id}.png",
            "metadata_fn": f"{image_id}.json",
            "objects": [ENGLISH_QUESTIONS.noun(shape.kind) for shape in scenes[index].shapes],
        }
        lines.append(json.dumps({**names, **record}, ensure_ascii=False) + "\n")
    write_text(folder / f"{split}.jsonl", "".join(lines))
