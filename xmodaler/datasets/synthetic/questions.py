"""Questions about a scene with their true answers, before any language asks them.

What a question says must not give its answer away: a model that never sees the picture should do
no better than one that always says the same. Yes and no are tossed for, a wrong statement is drawn
as a right one is, and answers that are counts are thinned out until the common ones are equally
frequent.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from xmodaler.datasets.synthetic.chance import RandomChooser
from xmodaler.datasets.synthetic.concepts import COLOURS, GROUND_COLOURS, KINDS, OPPOSITE, PATTERNS
from xmodaler.datasets.synthetic.scene import Scene

YES_NO, NUMBER, OTHER = "yes/no", "number", "other"
DIRECTIONS = ("left_of", "right_of", "above", "below")
COUNTS = ("0", "1", "2", "3", "4", "5")
# Topic -> type of its answers, and what these can be.
TOPICS: dict[str, tuple[str, tuple[str, ...]]] = {
    "is_there": (YES_NO, ("yes", "no")),
    "is_colour": (YES_NO, ("yes", "no")),
    "stands": (YES_NO, ("yes", "no")),
    "how_many_kind": (NUMBER, COUNTS),
    "how_many_colour": (NUMBER, COUNTS),
    "how_many": (NUMBER, COUNTS),
    "colour_of": (OTHER, tuple(COLOURS)),
    "kind_of": (OTHER, KINDS),
    "kind_at": (OTHER, KINDS),
    "ground_colour": (OTHER, tuple(GROUND_COLOURS)),
    "ground_pattern": (OTHER, PATTERNS),
}


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        topic: A key of ``TOPICS``.
        slots: The concepts that it mentions, in the order that the topic asks for.
        answer: What is true.
        plural: Whether what it asks about are several shapes.
    """

    topic: str
    slots: tuple[str, ...]
    answer: str
    plural: bool = False

    @property
    def answer_type(self) -> str:
        """``yes/no``, ``number`` or ``other``."""
        return TOPICS[self.topic][0]


def candidate_questions(scene: Scene, chooser: RandomChooser) -> list[Question]:
    """At most one question of every topic.

    Args:
        scene: The scene.
        chooser: Decides what is asked about.
    """
    questions = [
        _is_there(scene, chooser),
        *_of_uniform_kinds(scene, chooser),
        *_of_directions(scene, chooser),
        *_counts(scene, chooser),
        Question("ground_colour", (), scene.ground.colour),
        Question("ground_pattern", (), scene.ground.pattern),
    ]
    return [question for question in questions if question is not None]


def balanced(questions: Sequence[Question]) -> list[bool]:
    """Which questions to keep so that no count is more frequent than two others of its topic.

    Args:
        questions: Of all pictures of a split; the first of each answer are kept.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for question in questions:
        counts[question.topic][question.answer] += 1
    most = {topic: sorted(found.values())[-3:][0] for topic, found in counts.items()}
    taken: Counter[tuple[str, str]] = Counter()
    kept = []
    for question in questions:
        key = (question.topic, question.answer)
        keep = question.answer_type != NUMBER or taken[key] < most[question.topic]
        taken[key] += keep
        kept.append(keep)
    return kept


def _is_there(scene: Scene, chooser: RandomChooser) -> Question | None:
    shape = chooser.one_of(scene.shapes)
    colour, kind = shape.colour, shape.kind
    if chooser.rng.random() < 0.5:
        return Question("is_there", (colour, kind), "yes")
    if chooser.rng.random() < 0.5:
        colour = chooser.one_of(tuple(COLOURS))
    else:
        kind = chooser.one_of(KINDS)
    if scene.select(colour=colour, kind=kind):
        return None
    return Question("is_there", (colour, kind), "no")


def _of_uniform_kinds(scene: Scene, chooser: RandomChooser) -> list[Question]:
    """Questions about the colour of all shapes of a kind, and about the kind of all of a colour."""
    questions = []
    kind = chooser.one_of(scene.shapes).kind
    members = scene.select(kind=kind)
    colours = {scene.shapes[index].colour for index in members}
    if len(colours) == 1:
        (colour,) = colours
        several = len(members) > 1
        questions.append(Question("colour_of", (kind,), colour, several))
        other = chooser.one_of(tuple(COLOURS))
        if other != colour:  # said of either answer, so that each colour is as often right as wrong
            truth = chooser.rng.random() < 0.5
            slots = (kind, colour if truth else other)
            questions.append(Question("is_colour", slots, "yes" if truth else "no", several))
    colour = chooser.one_of(scene.shapes).colour
    members = scene.select(colour=colour)
    kinds = {scene.shapes[index].kind for index in members}
    if len(kinds) == 1:
        questions.append(Question("kind_of", (colour,), *kinds, len(members) > 1))
    return questions


def _of_directions(scene: Scene, chooser: RandomChooser) -> list[Question]:
    """Where one group stands to another, if that holds between all of their shapes."""
    groups = scene.groups()
    if len(groups) != 2:
        return []
    one, other = groups if chooser.rng.random() < 0.5 else groups[::-1]
    first, second = scene.shapes[one[0]], scene.shapes[other[0]]
    if (first.colour, first.kind) == (second.colour, second.kind):
        return []
    holding = [name for name in DIRECTIONS if scene.holds_between(name, one, other)]
    if not holding:
        return []
    truth = chooser.rng.random() < 0.5
    said = holding[0] if truth else OPPOSITE[holding[0]]
    slots = (first.colour, first.kind, said, second.colour, second.kind)
    questions = [Question("stands", slots, "yes" if truth else "no", len(one) > 1)]
    if first.kind != second.kind:
        slots = (holding[0], second.colour, second.kind)
        questions.append(Question("kind_at", slots, first.kind, len(one) > 1))
    return questions


def _counts(scene: Scene, chooser: RandomChooser) -> list[Question]:
    """A question for a number; about what is there most of, as zero and one are common anyway."""
    topic = chooser.pick([(0.4, "how_many_kind"), (0.4, "how_many_colour"), (0.2, "how_many")])
    if topic == "how_many":
        return [Question(topic, (), str(len(scene.shapes)))]
    name, options = ("kind", KINDS) if topic == "how_many_kind" else ("colour", tuple(COLOURS))
    present = Counter(getattr(shape, name) for shape in scene.shapes)
    if max(present.values()) == 1 and chooser.rng.random() < 0.5:
        asked = chooser.one_of(options)
    else:
        asked = max(present, key=lambda option: present[option])
    return [Question(topic, (asked,), str(present[asked]))]
