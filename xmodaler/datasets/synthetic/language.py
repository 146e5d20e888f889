"""How a language says a plan: a table of words and a few rules of order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from xmodaler.datasets.synthetic.chance import Chooser
from xmodaler.datasets.synthetic.concepts import COLOURS, GROUND_COLOURS, KINDS, PATTERNS, SIZES
from xmodaler.datasets.synthetic.plans import Mention, Plan
from xmodaler.datasets.synthetic.scene import Ground

Wordings = Mapping[str, tuple[tuple[float, str], ...]]


class PictureLanguage(Protocol):
    """What a language must be able to say of pictures; the chooser decides between its wordings."""

    def sentence(self, plan: Plan, chooser: Chooser) -> str:
        """One caption of a picture."""
        ...

    def words(self) -> list[str]:
        """Every word that a caption may hold, in alphabetical order."""
        ...


class Language(PictureLanguage, Protocol):
    """A language that knows videos too."""

    def video_sentence(self, plan: Plan, chooser: Chooser) -> str:
        """One caption of a video."""
        ...


def all_mentions() -> Iterator[Mention]:
    """Whatever can be mentioned of a picture."""
    looks = itertools.product(KINDS, COLOURS, (None, *SIZES), range(1, 6))
    for kind, colour, size, count in looks:
        yield Mention(tuple(range(count)), kind, colour, size)


def all_grounds() -> Iterator[Ground]:
    """Every ground."""
    return itertools.starmap(Ground, itertools.product(GROUND_COLOURS, PATTERNS))


@dataclass(frozen=True)
class English:
    """English captions.

    Attributes:
        kinds: Singular and plural of each kind.
        sizes, relations, patterns: Wordings of each concept with their weights.
        motions: Likewise, each wording for one shape and for several.
        numbers: Words for counts.
    """

    kinds: Mapping[str, tuple[str, str]] = field(
        default_factory=lambda: {
            "circle": ("circle", "circles"),
            "square": ("square", "squares"),
            "triangle": ("triangle", "triangles"),
            "star": ("star", "stars"),
            "heart": ("heart", "hearts"),
            "cross": ("cross", "crosses"),
            "ring": ("ring", "rings"),
            "crescent": ("moon", "moons"),
        }
    )
    sizes: Wordings = field(
        default_factory=lambda: {
            "small": ((0.75, "small"), (0.25, "little")),
            "big": ((0.75, "big"), (0.25, "large")),
        }
    )
    relations: Wordings = field(
        default_factory=lambda: {
            "left_of": ((0.7, "to the left of"), (0.3, "left of")),
            "right_of": ((0.7, "to the right of"), (0.3, "right of")),
            "above": ((0.8, "above"), (0.2, "over")),
            "below": ((0.8, "below"), (0.2, "under")),
            "next_to": ((0.7, "next to"), (0.3, "beside")),
            "inside": ((0.8, "inside"), (0.2, "in")),
            "around": ((1.0, "around"),),
        }
    )
    patterns: Wordings = field(
        default_factory=lambda: {
            "plain": ((0.7, "plain"), (0.3, "")),
            "striped": ((1.0, "striped"),),
            "dotted": ((1.0, "dotted"),),
            "checkered": ((1.0, "checkered"),),
            "speckled": ((1.0, "speckled"),),
        }
    )
    motions: Mapping[str, tuple[tuple[float, tuple[str, str]], ...]] = field(
        default_factory=lambda: {
            "still": (
                (0.7, ("stays still", "stay still")),
                (0.3, ("does not move", "do not move")),
            ),
            "move_left": (
                (0.7, ("moves to the left", "move to the left")),
                (0.3, ("goes left", "go left")),
            ),
            "move_right": (
                (0.7, ("moves to the right", "move to the right")),
                (0.3, ("goes right", "go right")),
            ),
            "move_up": ((0.7, ("moves up", "move up")), (0.3, ("rises", "rise"))),
            "move_down": ((0.7, ("moves down", "move down")), (0.3, ("falls", "fall"))),
            "grow": ((0.7, ("grows", "grow")), (0.3, ("gets bigger", "get bigger"))),
            "shrink": ((0.7, ("shrinks", "shrink")), (0.3, ("gets smaller", "get smaller"))),
            "blink": ((0.7, ("blinks", "blink")), (0.3, ("flashes", "flash"))),
        }
    )
    numbers: tuple[str, ...] = ("no", "a", "two", "three", "four", "five")

    def sentence(self, plan: Plan, chooser: Chooser) -> str:
        """One caption of a picture."""
        phrases = [self.noun_phrase(mention, chooser) for mention in plan.mentions]
        if plan.relation is not None:
            words = f"{phrases[0]} {chooser.pick(self.relations[plan.relation])} {phrases[1]}"
        else:
            words = self.enumeration(phrases)
        if plan.ground is not None:
            words = f"{words} on {self.ground(plan.ground, chooser)}"
        opening = "there is" if plan.mentions[0].count == 1 else "there are"
        words = chooser.pick([(0.8, words), (0.2, f"{opening} {words}")])
        return f"{words[0].upper()}{words[1:]}."

    def video_sentence(self, plan: Plan, chooser: Chooser) -> str:
        """One caption of a video: who does what, perhaps while another does something else."""
        clauses = []
        for mention in plan.mentions:
            one, many = chooser.pick(self.motions[mention.motion or "still"])
            verb = one if mention.count == 1 else many
            clauses.append(f"{self.noun_phrase(mention, chooser)} {verb}")
        words = f" {chooser.pick([(0.7, 'while'), (0.3, 'and')])} ".join(clauses)
        if plan.ground is not None:
            words = f"{words} on {self.ground(plan.ground, chooser)}"
        return f"{words[0].upper()}{words[1:]}."

    def noun_phrase(self, mention: Mention, chooser: Chooser) -> str:
        """Such as "two small red circles"."""
        size = "" if mention.size is None else chooser.pick(self.sizes[mention.size])
        one, many = self.kinds[mention.kind]
        noun = one if mention.count == 1 else many
        article = self.numbers[mention.count]
        if mention.count == 1 and (size or mention.colour)[0] in "aeiou":
            article = "an"
        return " ".join(word for word in (article, size, mention.colour, noun) if word)

    def ground(self, ground: Ground, chooser: Chooser) -> str:
        """Such as "a striped grey background"."""
        pattern = chooser.pick(self.patterns[ground.pattern])
        noun = chooser.pick([(0.8, "background"), (0.2, "ground")])
        return " ".join(word for word in ("a", pattern, ground.colour, noun) if word)

    def words(self) -> list[str]:
        """Every word that a caption may hold, in alphabetical order."""
        phrases = " ".join(self._phrases())
        return sorted({*phrases.split(), *COLOURS, *GROUND_COLOURS, *self.numbers[1:]})

    def _phrases(self) -> Iterator[str]:
        yield "an there is are on and while background ground"
        yield from (noun for pair in self.kinds.values() for noun in pair)
        for table in (self.sizes, self.relations, self.patterns):
            yield from (phrase for options in table.values() for _, phrase in options)
        for options in self.motions.values():
            yield from (phrase for _, pair in options for phrase in pair)

    @staticmethod
    def enumeration(phrases: list[str]) -> str:
        """Such as "a red circle, two stars and a ring"."""
        *first, last = phrases
        return f"{', '.join(first)} and {last}" if first else last


ENGLISH = English()
