"""Questions about what happens in a video, which no single frame answers.

Models that average over frames see that something was in several places, but not in which order.
So left and right count as one manner of moving, up and down as another, and growing and shrinking
as one of changing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from xmodaler.datasets.synthetic.chance import RandomChooser
from xmodaler.datasets.synthetic.concepts import COLOURS, KINDS
from xmodaler.datasets.synthetic.language import ENGLISH, English
from xmodaler.datasets.synthetic.motions import Motions
from xmodaler.datasets.synthetic.scene import Scene

# Motion -> what can be told without the order of frames.
MANNERS: dict[str, str] = {
    "still": "still",
    "move_left": "sideways",
    "move_right": "sideways",
    "move_up": "upright",
    "move_down": "upright",
    "grow": "size",
    "shrink": "size",
    "blink": "blink",
}
# Manner -> what it is called as an answer, and what a shape (or several) does in a question.
_DOING: dict[str, tuple[str, str, str]] = {
    "still": ("nothing", "stays still", "stay still"),
    "sideways": ("moves sideways", "moves sideways", "move sideways"),
    "upright": ("moves up or down", "moves up or down", "move up or down"),
    "size": ("changes size", "changes size", "change size"),
    "blink": ("blinks", "blinks", "blink"),
}
# About how often the shapes that are asked about do each.
_COMMON = [(0.27, "sideways"), (0.27, "upright"), (0.27, "size"), (0.12, "blink"), (0.07, "still")]
STILL_SHARE = 0.25  # of shapes that do nothing, which are asked what they do


@dataclass(frozen=True)
class VideoQuestion:
    """One question.

    Attributes:
        topic: ``manner_of``, ``kind_of``, ``colour_of`` or ``does``.
        manner: What it mentions, or None.
        colour, kind: Of the shapes that it mentions, or None.
        plural: Whether these are several.
        answer: A manner, a kind, a colour, "yes" or "no".
    """

    topic: str
    manner: str | None
    colour: str | None
    kind: str | None
    plural: bool
    answer: str

    def words(self, language: English = ENGLISH) -> str:
        """Such as "what does the red star do?"."""
        if self.topic in ("kind_of", "colour_of"):
            doing = _DOING[str(self.manner)][1]
            if self.topic == "kind_of":
                return f"what shape {doing}?"
            return f"what color is the shape that {doing}?"
        noun = language.kinds[str(self.kind)][self.plural]
        verb = "do" if self.plural else "does"
        asked = "what" if self.topic == "manner_of" else ""
        doing = "do" if self.topic == "manner_of" else _DOING[str(self.manner)][2]
        return f"{asked} {verb} the {self.colour} {noun} {doing}?".strip()


def answer_words(answer: str, language: English = ENGLISH) -> str:
    """How an answer is written."""
    if answer in _DOING:
        return _DOING[answer][0]
    return language.kinds[answer][0] if answer in language.kinds else answer


def all_answers() -> list[str]:
    """Every answer there can be, in a fixed order."""
    return [answer_words(answer) for answer in ("yes", "no", *_DOING, *KINDS, *COLOURS)]


def sample_video_questions(
    scene: Scene, motions: Motions, chooser: RandomChooser
) -> list[VideoQuestion]:
    """At most one question of each topic, with its true answer.

    Args:
        scene: What the video shows.
        motions: What its groups do.
        chooser: Decides what is asked about.
    """
    named = [
        members
        for members in motions
        if scene.select(kind=scene.shapes[members[0]].kind, colour=scene.shapes[members[0]].colour)
        == members
    ]
    manners = {members: MANNERS[motion.name] for members, motion in motions.items()}
    questions = _of_shapes(scene, manners, named, chooser)
    counts = Counter(manners.values())
    doers = [m for m in motions if manners[m] != "still" and counts[manners[m]] == 1]
    if doers:
        members = chooser.one_of(doers)
        shape, manner = scene.shapes[members[0]], manners[members]
        topic, answer = chooser.one_of([("kind_of", shape.kind), ("colour_of", shape.colour)])
        questions.append(VideoQuestion(topic, manner, None, None, False, answer))
    return questions


def _of_shapes(
    scene: Scene,
    manners: dict[tuple[int, ...], str],
    named: Sequence[tuple[int, ...]],
    chooser: RandomChooser,
) -> list[VideoQuestion]:
    """What a group does, and whether it does a certain thing: yes and no are tossed for."""
    questions = []
    doing = [m for m in named if manners[m] != "still" or chooser.rng.random() < STILL_SHARE]
    if doing:
        members = chooser.one_of(doing)
        shape = scene.shapes[members[0]]
        about = (shape.colour, shape.kind, len(members) > 1)
        questions.append(VideoQuestion("manner_of", None, *about, manners[members]))
        other = chooser.pick(_COMMON)
        if other != manners[members]:
            # Said of either answer, so that each manner is as often right as wrong.
            truth = chooser.rng.random() < 0.5
            said = manners[members] if truth else other
            questions.append(VideoQuestion("does", said, *about, "yes" if truth else "no"))
    return questions
