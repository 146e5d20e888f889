"""What a sentence says about a scene, before any language says it.

A plan is a choice of true facts: which groups are mentioned, with which properties, in which
relation, and whether the ground is. Sentences of every language, questions and statements are
made from plans, so that whatever is said of a scene can be checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass

from xmodaler.datasets.synthetic.chance import Chooser
from xmodaler.datasets.synthetic.scene import Ground, Scene

MAX_MENTIONS = 3
RELATION_WEIGHTS: dict[str, float] = {
    "inside": 8.0,
    "around": 2.0,
    "left_of": 4.0,
    "right_of": 4.0,
    "above": 4.0,
    "below": 4.0,
    "next_to": 1.0,
}


@dataclass(frozen=True)
class Mention:
    """Shapes of one look, as a sentence mentions them.

    Attributes:
        members: Indices of the shapes in the scene.
        kind: Their kind.
        colour: Their colour.
        size: Their size, or None where the sentence is silent about it.
        motion: What they do in a video, or None in a picture.
    """

    members: tuple[int, ...]
    kind: str
    colour: str
    size: str | None
    motion: str | None = None

    @property
    def count(self) -> int:
        """How many shapes are meant."""
        return len(self.members)

    def is_true_of(self, scene: Scene) -> bool:
        """Whether exactly these shapes of the scene fit the description."""
        return scene.select(kind=self.kind, colour=self.colour, size=self.size) == self.members


@dataclass(frozen=True)
class Plan:
    """One sentence's worth of facts.

    Attributes:
        mentions: The groups, in the order of the sentence.
        relation: How the first stands to the second, or None.
        ground: The ground, where the sentence speaks of it.
    """

    mentions: tuple[Mention, ...]
    relation: str | None = None
    ground: Ground | None = None

    def is_true_of(self, scene: Scene) -> bool:
        """Whether everything that the plan says holds in the scene."""
        if self.ground not in (None, scene.ground):
            return False
        if not all(mention.is_true_of(scene) for mention in self.mentions):
            return False
        if self.relation is None:
            return True
        first, second = self.mentions[:2]
        return scene.holds_between(self.relation, first.members, second.members)


def salient_groups(scene: Scene) -> list[tuple[int, ...]]:
    """The groups of a scene in the order in which people notice them.

    The group that covers most of the picture comes first, a big shape counting as three small
    ones; among equals, the one nearer to the top left corner.
    """

    def rank(members: tuple[int, ...]) -> tuple[int, float]:
        shapes = [scene.shapes[index] for index in members]
        weight = sum(3 if shape.size == "big" else 1 for shape in shapes)
        return -weight, sum(shape.x + shape.y for shape in shapes) / len(shapes)

    return sorted(scene.groups(), key=rank)


def make_plan(scene: Scene, chooser: Chooser) -> Plan:
    """Choose what to say of a picture.

    With a random chooser this is what one of many people might say; with the usual chooser it is
    what most of them would.
    """
    groups = salient_groups(scene)
    if len(groups) == 1:
        with_ground = chooser.pick([(0.6, True), (0.4, False)])
        mention = _mention(scene, groups[0], chooser)
        return Plan((mention,), ground=scene.ground if with_ground else None)
    related = len(groups) == 2 or chooser.pick([(0.6, False), (0.4, True)])
    pair, relation = _relate(scene, groups[0], groups[1], chooser)
    if related and relation is not None:
        chosen = pair
    else:
        chosen, relation = tuple(groups[:MAX_MENTIONS]), None
    mentions = tuple(_mention(scene, members, chooser) for members in chosen)
    with_ground = chooser.pick([(0.75, False), (0.25, True)])
    return Plan(mentions, relation, scene.ground if with_ground else None)


def _mention(scene: Scene, members: tuple[int, ...], chooser: Chooser) -> Mention:
    shape = scene.shapes[members[0]]
    with_size = chooser.pick([(0.8, True), (0.2, False)])
    unique = scene.select(kind=shape.kind, colour=shape.colour) == members
    return Mention(
        members, shape.kind, shape.colour, None if unique and not with_size else shape.size
    )


def _relate(
    scene: Scene, one: tuple[int, ...], other: tuple[int, ...], chooser: Chooser
) -> tuple[tuple[tuple[int, ...], tuple[int, ...]], str | None]:
    """Two groups in the order of the sentence, and a relation that holds in that order."""
    first, second = chooser.pick([(0.8, (one, other)), (0.2, (other, one))])
    holding = [
        (weight, relation)
        for relation, weight in RELATION_WEIGHTS.items()
        if scene.holds_between(relation, first, second)
    ]
    return (first, second), chooser.pick(holding) if holding else None
