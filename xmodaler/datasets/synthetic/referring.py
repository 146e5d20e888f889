"""Expressions that mean exactly one shape, and crowded scenes in which that takes some words.

As in RefCOCO (Yu et al., ECCV 2016), what is meant is never the only one of its kind.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from xmodaler.datasets.synthetic.chance import RandomChooser
from xmodaler.datasets.synthetic.language import ENGLISH, English
from xmodaler.datasets.synthetic.scene import CLEAR_SHIFT, Scene

Look = tuple[str | None, str | None, str | None]
"""Size, colour and kind, or None for what is not said."""

RELATIONS = ("left_of", "right_of", "above", "below", "inside", "next_to")
# Name -> axis and whether the greatest coordinate is meant.
EXTREMES: dict[str, tuple[str, bool]] = {
    "leftmost": ("x", False),
    "rightmost": ("x", True),
    "top": ("y", False),
    "bottom": ("y", True),
}


@dataclass(frozen=True)
class Reference:
    """What an expression says.

    Attributes:
        look: Of the shape that is meant.
        relation, landmark: How it stands to the shape that the landmark's look means alone.
        extreme: A key of ``EXTREMES``, among the shapes of that look.
    """

    look: Look
    relation: str | None = None
    landmark: Look | None = None
    extreme: str | None = None

    def matches(self, scene: Scene) -> tuple[int, ...]:
        """Indices of the shapes that fit."""
        found = select(scene, self.look)
        if self.relation is not None and self.landmark is not None:
            (other,) = select(scene, self.landmark) or (None,)
            return tuple(
                index
                for index in found
                if other is not None and index != other
                and scene.holds(self.relation, index, other)
            )  # fmt: skip
        if self.extreme is None or len(found) < 2:
            return found
        axis, greatest = EXTREMES[self.extreme]
        order = sorted(
            found, key=lambda index: getattr(scene.shapes[index], axis), reverse=greatest
        )
        first, second = (getattr(scene.shapes[index], axis) for index in order[:2])
        return (order[0],) if abs(first - second) > CLEAR_SHIFT else tuple(order[:2])

    def words(self, chooser: RandomChooser, language: English = ENGLISH) -> str:
        """Such as "small star to the left of the red ring"."""
        noun = look_words(self.look, language)
        if self.extreme is not None:
            return f"{self.extreme} {noun}"
        if self.relation is None or self.landmark is None:
            return noun
        place = chooser.pick(language.relations[self.relation])
        return f"{noun} {place} the {look_words(self.landmark, language)}"


def select(scene: Scene, look: Look) -> tuple[int, ...]:
    """Indices of the shapes of a look."""
    size, colour, kind = look
    return scene.select(size=size, colour=colour, kind=kind)


def look_words(look: Look, language: English = ENGLISH) -> str:
    """Such as "small red star" or "red shape"."""
    size, colour, kind = look
    noun = "shape" if kind is None else language.kinds[kind][0]
    return " ".join(word for word in (size, colour, noun) if word)


def sample_references(
    scene: Scene, target: int, count: int, chooser: RandomChooser
) -> list[Reference]:
    """Different expressions for a shape that is not the only one of its kind.

    Args:
        scene: The scene.
        target: Index of the shape.
        count: How many at most.
        chooser: Draws them; each way to refer (by looks, by relation, by place) as likely.
    """
    kind = scene.shapes[target].kind
    if len(scene.select(kind=kind)) < 2:
        return []
    by_way = [way for way in _ways(scene, target) if way]
    found: list[Reference] = []
    while by_way and len(found) < count:
        way = chooser.one_of(by_way)
        found.append(way.pop(int(chooser.rng.random() * len(way))))
        by_way = [way for way in by_way if way]
    return found


def _ways(scene: Scene, target: int) -> tuple[list[Reference], ...]:
    """All expressions for a shape: by its looks, by a relation, by its place among its like."""
    looks, relations, places = [], [], []
    options = list(_looks_of(scene, target))
    for look in options:
        if select(scene, look) == (target,):
            # Nothing that is said could be left out.
            if not any(select(scene, less) == (target,) for less in _parts(look)):
                looks.append(Reference(look))
            continue
        if look[2] is None:
            continue
        places += [Reference(look, extreme=name) for name in EXTREMES]
        for landmark in _landmarks(scene, target):
            relations += [Reference(look, name, landmark) for name in RELATIONS]
    checked = [
        [reference for reference in way if reference.matches(scene) == (target,)]
        for way in (looks, relations, places)
    ]
    return tuple(checked)


def _looks_of(scene: Scene, target: int) -> Iterator[Look]:
    size, colour, kind = scene.shapes[target].look
    return itertools.product((None, size), (None, colour), (None, kind))


def _parts(look: Look) -> list[Look]:
    """The looks that say one thing less."""
    parts: list[Look] = []
    for place, value in enumerate(look):
        if value is not None:
            less = list(look)
            less[place] = None
            parts.append((less[0], less[1], less[2]))
    return parts


def _landmarks(scene: Scene, target: int) -> list[Look]:
    """The shortest unique looks, with a kind, of the other shapes."""
    found = []
    for other in range(len(scene.shapes)):
        unique = [
            look
            for look in _looks_of(scene, other)
            if look[2] is not None and select(scene, look) == (other,)
        ]
        if other != target and unique:
            found.append(min(unique, key=_length))
    return found


def _length(look: Sequence[str | None]) -> int:
    return sum(value is not None for value in look)
