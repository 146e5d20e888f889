"""Pictures and captions that differ in one thing: the hardest to tell apart in a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from xmodaler.datasets.synthetic.chance import RandomChooser, UsualChooser, generator
from xmodaler.datasets.synthetic.concepts import (
    COLOURS,
    GROUND_COLOURS,
    KINDS,
    PATTERNS,
    RADII,
    SIZES,
)
from xmodaler.datasets.synthetic.language import ENGLISH
from xmodaler.datasets.synthetic.plans import MAX_MENTIONS, Mention, Plan, salient_groups
from xmodaler.datasets.synthetic.questions import DIRECTIONS
from xmodaler.datasets.synthetic.sampling import fits
from xmodaler.datasets.synthetic.scene import Scene, Shape, split_of

FAMILY = 5  # at most: a picture and its twins
WORDINGS = 2
_TRIES = 200


@dataclass(frozen=True)
class Twin:
    """A scene with captions that say all of it.

    Attributes:
        scene: The scene.
        captions: ``WORDINGS`` sentences; the sentences of the same number of two members of a
            family differ in one word if one of the two is the first.
        plan: What the sentences say.
    """

    scene: Scene
    captions: tuple[str, ...]
    plan: Plan


def sample_family(scene: Scene, seed: int, split: str, index: int) -> list[Twin] | None:
    """A scene and others that each differ from it in one word of their captions.

    Args:
        scene: The first of the family.
        seed, split, index: Of the scene; all scenes of the family belong to the split.

    Returns:
        Two to ``FAMILY`` twins, the given scene first; None if it has none.
    """
    groups = salient_groups(scene)[:MAX_MENTIONS]
    plan = _full_plan(scene, groups)
    if len(groups) < len(scene.groups()) or plan is None:
        return None
    chooser = RandomChooser(generator(seed, split, index, "twins"))
    scenes, plans = [scene], [plan]
    for _ in range(_TRIES):
        other = _change(scene, groups, chooser)
        if other is None or split_of(other.signature()) != split:
            continue
        plan = _full_plan(other, groups)
        if plan is None or plan in plans or _different_words(plans[0], plan) != 1:
            continue
        scenes.append(other)
        plans.append(plan)
        if len(scenes) == FAMILY:
            break
    captions = _wordings(plans, chooser)
    if captions is None or len(scenes) == 1:
        return None
    return list(map(Twin, scenes, captions, plans))


def _full_plan(scene: Scene, groups: Sequence[tuple[int, ...]]) -> Plan | None:
    """Everything there is to say, or None if that would not be true or fit other shapes too."""
    mentions = tuple(Mention(members, *_looks(scene, members)) for members in groups)
    relation = None
    if len(groups) == 2:
        holding = [name for name in DIRECTIONS if scene.holds_between(name, *groups)]
        relation = holding[0] if holding else None
    plan = Plan(mentions, relation, scene.ground)
    return plan if plan.is_true_of(scene) else None


def _looks(scene: Scene, members: tuple[int, ...]) -> tuple[str, str, str]:
    size, colour, kind = scene.shapes[members[0]].look
    return kind, colour, size


def _change(
    scene: Scene, groups: Sequence[tuple[int, ...]], chooser: RandomChooser
) -> Scene | None:
    """The scene with one thing changed, or None if there is no room for it."""
    what = chooser.pick(
        [(3, "colour"), (3, "kind"), (1, "size"), (1, "ground"), (1, "pattern"), (3, "place")]
    )
    ground = scene.ground
    if what == "ground":
        return replace(scene, ground=replace(ground, colour=chooser.one_of(tuple(GROUND_COLOURS))))
    if what == "pattern":
        return replace(scene, ground=replace(ground, pattern=chooser.one_of(PATTERNS)))
    if what == "place":
        return _mirrored(scene, "x" if chooser.rng.random() < 0.5 else "y")
    options = {"colour": tuple(COLOURS), "kind": KINDS, "size": SIZES}[what]
    value, members = chooser.one_of(options), chooser.one_of(groups)
    changed = {what: value}
    shapes = list(scene.shapes)
    for index in members:
        radius = chooser.uniform(*RADII[value]) if what == "size" else shapes[index].radius
        shapes[index] = replace(shapes[index], radius=radius, **changed)
    other = Scene(tuple(shapes), scene.ground)
    return other if fits(other.shapes) else None


def _mirrored(scene: Scene, axis: str) -> Scene:
    """Every shape on the other side of the middle, turned as it was."""

    def mirror(shape: Shape) -> Shape:
        return replace(shape, **{axis: 1 - getattr(shape, axis)})

    return replace(scene, shapes=tuple(mirror(shape) for shape in scene.shapes))


def _wordings(plans: Sequence[Plan], chooser: RandomChooser) -> list[tuple[str, ...]] | None:
    """The captions of each plan, all worded alike."""
    accepted: list[list[str]] = []
    for _ in range(_TRIES):
        start = chooser.rng.bit_generator.state
        sentences = []
        for plan in plans:
            chooser.rng.bit_generator.state = start
            sentences.append(ENGLISH.sentence(plan, chooser))
        if all(_distance(sentences[0], other) == 1 for other in sentences[1:]):
            accepted.append(sentences)
        if len(accepted) == WORDINGS:
            return list(zip(*accepted, strict=True))
    return None


def _different_words(one: Plan, other: Plan) -> int:
    """In how many words the usual captions differ."""
    return _distance(*(ENGLISH.sentence(plan, UsualChooser()) for plan in (one, other)))


def _distance(one: str, other: str) -> int:
    words, others = one.split(), other.split()
    if len(words) != len(others):
        return len(words) + len(others)
    return sum(a != b for a, b in zip(words, others, strict=True))
