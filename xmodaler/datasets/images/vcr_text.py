"""Texts of visual commonsense reasoning: words mixed with references to objects."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Any

PERSON_NAMES = (
    "Casey",
    "Riley",
    "Jessie",
    "Jackie",
    "Avery",
    "Jaime",
    "Peyton",
    "Kerry",
    "Jody",
    "Kendall",
    "Frankie",
    "Pat",
    "Quinn",
)
"""Names that tell nothing, given to persons in turn."""


def object_names(objects: Sequence[str], persons: Iterator[int]) -> list[str]:
    """What each object of a picture is called: its class, a person by the next name in turn.

    Args:
        objects: Classes.
        persons: Gives the number of the next person.
    """
    turn = len(PERSON_NAMES)
    return [PERSON_NAMES[next(persons) % turn] if name == "person" else name for name in objects]


def sentence(items: Sequence[Any], names: Sequence[str]) -> str:
    """Words and lists of object numbers as one text, objects of a list joined with "and".

    Args:
        items: Strings and lists of indices into ``names``.
        names: What the objects are called.

    Raises:
        ValueError: An item refers to an object that does not exist, or is neither.
    """
    words = []
    for item in items:
        if isinstance(item, str):
            words.append(item)
            continue
        if not isinstance(item, list) or not item:
            raise ValueError(f"{item!r} is neither a word nor a list of object numbers")
        for index in item:
            if isinstance(index, bool) or not isinstance(index, int):
                raise ValueError(f"{index!r} is not the number of an object")
            if not 0 <= index < len(names):
                raise ValueError(f"refers to object {index}, but there are {len(names)} objects")
        words.append(" and ".join(names[index] for index in item))
    return " ".join(words)


def person_numbers() -> Iterator[int]:
    """0, 1, 2, ...: persons are numbered over a whole file."""
    return count()


def truncate_pair(first: list[int], second: list[int], room: int) -> None:
    """Shorten two texts in place until both fit, always the longer one, the first if equal."""
    while len(first) + len(second) > room:
        (second if len(second) > len(first) else first).pop()


def truncate_triple(
    question: list[int], answer: list[int], rationale: list[int], room: int
) -> None:
    """Shorten three texts in place until all fit.

    The rationale goes first while it is longer than the two others together, then the question
    but for one piece, then the answer.
    """
    while len(question) + len(answer) + len(rationale) > room:
        if len(rationale) > len(question) + len(answer):
            rationale.pop()
        elif len(question) > 1:
            question.pop()
        elif answer:
            answer.pop()
        else:
            rationale.pop()
