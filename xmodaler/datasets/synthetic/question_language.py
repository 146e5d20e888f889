"""How English asks questions about scenes, answers them, and puts statements to choose from."""

from __future__ import annotations

from dataclasses import dataclass

from xmodaler.datasets.synthetic.concepts import COLOURS, GROUND_COLOURS, PATTERNS
from xmodaler.datasets.synthetic.language import ENGLISH, English
from xmodaler.datasets.synthetic.questions import COUNTS, Question

DIRECTION_WORDS = {
    "left_of": "to the left of",
    "right_of": "to the right of",
    "above": "above",
    "below": "below",
}
# What one of ten people may write instead.
SYNONYMS = {"moon": "crescent", "checkered": "checked", "grey": "gray", "plain": "solid"}


@dataclass(frozen=True)
class EnglishQuestions:
    """English questions, answers and statements; nouns are those of the captions."""

    captions: English = ENGLISH

    def noun(self, kind: str, plural: bool = False) -> str:
        """Such as "moons"."""
        return self.captions.kinds[kind][plural]

    def answer(self, answer: str) -> str:
        """The word for an answer."""
        return self.noun(answer) if answer in self.captions.kinds else answer

    def answers(self) -> list[str]:
        """Every true answer there can be, in a fixed order."""
        nouns = [one for one, _ in self.captions.kinds.values()]
        return ["yes", "no", *COUNTS, *nouns, *COLOURS, *GROUND_COLOURS, *PATTERNS]

    def question_type(self, question: Question) -> str:
        """The first words, by which VQA v2 sorts questions."""
        words = self.question(question).split()
        return " ".join(words[: 3 if words[0] in ("is", "are") and words[1] == "there" else 2])

    def question(self, question: Question) -> str:
        """Such as "what color is the star?"."""
        slots, several = question.slots, question.plural
        verb = "are" if several else "is"
        match question.topic:
            case "is_there":
                return f"is there {_article(slots[0])} {slots[0]} {self.noun(slots[1])}?"
            case "is_colour":
                return f"{verb} the {self.noun(slots[0], several)} {slots[1]}?"
            case "stands":
                first = f"the {slots[0]} {self.noun(slots[1], several)}"
                return f"{verb} {first} {DIRECTION_WORDS[slots[2]]} {self._definite(slots[3:])}?"
            case "how_many_kind":
                return f"how many {self.noun(slots[0], True)} are there?"
            case "how_many_colour":
                return f"how many {slots[0]} shapes are there?"
            case "how_many":
                return "how many shapes are there?"
            case "colour_of":
                return f"what color {verb} the {self.noun(slots[0], several)}?"
            case "kind_of":
                return f"what shape is {slots[0]}?"
            case "kind_at":
                return f"what shape is {DIRECTION_WORDS[slots[0]]} {self._definite(slots[1:])}?"
            case "ground_colour":
                return "what color is the background?"
            case "ground_pattern":
                return "what pattern does the background have?"
        raise KeyError(question.topic)

    def _definite(self, look: tuple[str, ...]) -> str:
        """The other group, in the singular: how many it has is not what is asked."""
        colour, kind = look
        return f"the {colour} {self.noun(kind)}"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


ENGLISH_QUESTIONS = EnglishQuestions()
