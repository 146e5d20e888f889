"""Statements about two pictures, each true of one pair and false of another.

As in NLVR2 (Suhr et al., ACL 2019), every sentence comes with both labels, so that nobody can tell
from its words alone whether it is true.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xmodaler.datasets.synthetic.chance import RandomChooser
from xmodaler.datasets.synthetic.concepts import COLOURS, KINDS, PATTERNS
from xmodaler.datasets.synthetic.language import ENGLISH, English
from xmodaler.datasets.synthetic.question_language import DIRECTION_WORDS
from xmodaler.datasets.synthetic.questions import DIRECTIONS
from xmodaler.datasets.synthetic.scene import Scene

TRIES = 40
# How often what is said is about which shapes: those of a kind, of a colour, or of both.
_SUBJECTS = [(0.45, "kind"), (0.35, "colour"), (0.2, "look")]
_TOPICS = [
    (3.0, "both_have"),
    (3.0, "one_has"),
    (3.0, "left_has"),
    (3.0, "right_has"),
    (3.0, "total"),
    (2.0, "left_more"),
    (2.0, "right_more"),
    (2.0, "both_grounds"),
    (2.5, "relation"),
]
_NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Statement:
    """What is said of two pictures.

    Attributes:
        topic: What is compared.
        colour, kind: Of the shapes that are spoken of; None for any.
        number: How many there are, of ``total``.
        pattern: Of both grounds.
        relation, other: How a shape of ``kind`` stands to one of the kind ``other``.
    """

    topic: str
    colour: str | None = None
    kind: str | None = None
    number: int = 0
    pattern: str = ""
    relation: str = ""
    other: str = ""

    def is_true(self, left: Scene, right: Scene) -> bool:
        """Whether it holds."""
        one, other = self._count(left), self._count(right)
        match self.topic:
            case "both_have":
                return min(one, other) > 0
            case "one_has":
                return (one > 0) != (other > 0)
            case "left_has":
                return one > 0
            case "right_has":
                return other > 0
            case "total":
                return one + other == self.number
            case "left_more":
                return one > other
            case "right_more":
                return other > one
            case "both_grounds":
                return left.ground.pattern == right.ground.pattern == self.pattern
            case "relation":
                return any(self._stands(scene) for scene in (left, right))
        raise KeyError(self.topic)

    def concerns(self, left: Scene, right: Scene) -> bool:
        """Whether a picture shows what it speaks of, so that one has to look closely."""
        if self.topic == "both_grounds":
            return self.pattern in (left.ground.pattern, right.ground.pattern)
        if self.topic == "relation":
            kinds = {shape.kind for scene in (left, right) for shape in scene.shapes}
            return {self.kind, self.other} <= kinds
        return self._count(left) + self._count(right) > 0

    def words(self, language: English = ENGLISH) -> str:
        """Such as "there are three stars in the two pictures"."""
        one, many = self._noun(language, 0), self._noun(language, 1)
        article = "an" if one[0] in "aeiou" else "a"
        match self.topic:
            case "both_have":
                return f"both pictures show {article} {one}"
            case "one_has":
                return f"only one picture shows {article} {one}"
            case "left_has":
                return f"the left picture shows {article} {one}"
            case "right_has":
                return f"the right picture shows {article} {one}"
            case "total":
                verb, noun = ("is", one) if self.number == 1 else ("are", many)
                return f"there {verb} {_NUMBERS[self.number]} {noun} in the two pictures"
            case "left_more":
                return f"the left picture shows more {many} than the right picture"
            case "right_more":
                return f"the right picture shows more {many} than the left picture"
            case "both_grounds":
                return f"both pictures have a {self.pattern} background"
            case "relation":
                place, noun = DIRECTION_WORDS[self.relation], language.kinds[self.other][0]
                return f"in one picture {article} {one} is {place} a {noun}"
        raise KeyError(self.topic)

    def _count(self, scene: Scene) -> int:
        return len(scene.select(colour=self.colour, kind=self.kind))

    def _stands(self, scene: Scene) -> bool:
        ones, others = scene.select(kind=self.kind), scene.select(kind=self.other)
        return any(scene.holds(self.relation, a, b) for a in ones for b in others)

    def _noun(self, language: English, several: int) -> str:
        noun = ("shape", "shapes") if self.kind is None else language.kinds[self.kind]
        return " ".join(word for word in (self.colour, noun[several]) if word)


@dataclass(frozen=True)
class Judged:
    """A statement with a pair of pictures of which it is true, and one of which it is false."""

    statement: Statement
    true: tuple[int, int]
    false: tuple[int, int]


def sample_statement(scenes: Sequence[Scene], first: int, chooser: RandomChooser) -> Judged | None:
    """A statement about the picture ``first`` and another, true or false of them by toss.

    Args:
        scenes: Of a split.
        first: Index of one of the two pictures.
        chooser: Draws the rest.

    Returns:
        None if no other pair was found of which it is the other way.
    """
    pair = _pair(scenes, first, chooser)
    truth = chooser.rng.random() < 0.5
    for _ in range(TRIES):
        statement = _draw(scenes[pair[0]], scenes[pair[1]], chooser)
        if statement is not None and _truth(statement, scenes, pair) == truth:
            break
    else:
        return None
    for _ in range(TRIES):
        other = _pair(scenes, int(chooser.rng.random() * len(scenes)), chooser)
        near = statement.concerns(scenes[other[0]], scenes[other[1]])
        if near and _truth(statement, scenes, other) != truth:
            return Judged(statement, *((pair, other) if truth else (other, pair)))
    return None


def _truth(statement: Statement, scenes: Sequence[Scene], pair: tuple[int, int]) -> bool:
    return statement.is_true(scenes[pair[0]], scenes[pair[1]])


def _pair(scenes: Sequence[Scene], first: int, chooser: RandomChooser) -> tuple[int, int]:
    other = (first + 1 + int(chooser.rng.random() * (len(scenes) - 1))) % len(scenes)
    return (first, other) if chooser.rng.random() < 0.5 else (other, first)


def _draw(left: Scene, right: Scene, chooser: RandomChooser) -> Statement | None:
    topic = chooser.pick(_TOPICS)
    if topic == "both_grounds":
        pattern = chooser.one_of((left.ground.pattern, right.ground.pattern, *PATTERNS))
        return Statement(topic, pattern=pattern)
    if topic == "relation":
        scene = chooser.one_of([s for s in (left, right) if len(s.groups()) > 1] or [left])
        kinds = sorted({shape.kind for shape in scene.shapes})
        if len(kinds) < 2:
            return None
        one, other = (kinds[k] for k in chooser.rng.permutation(len(kinds))[:2])
        return Statement(topic, kind=one, relation=chooser.one_of(DIRECTIONS), other=other)
    shape = chooser.one_of((*left.shapes, *right.shapes))
    subject = chooser.pick(_SUBJECTS)
    kind = None if subject == "colour" else shape.kind
    colour = None if subject == "kind" else shape.colour
    if chooser.rng.random() < 0.2:  # now and then of what is not there
        kind = kind and chooser.one_of(KINDS)
        colour = colour and chooser.one_of(tuple(COLOURS))
    number = int(chooser.rng.random() * len(_NUMBERS)) + 1 if topic == "total" else 0
    return Statement(topic, colour, kind, number)
