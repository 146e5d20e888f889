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


Row = list[list[int]]
"""Ids and types of one text."""


class ChoiceTexts:
    """Questions with the answers to choose from, and with rationales, as ids and types.

    Args:
        tokenizer: Cuts the texts.
        max_seq_len: Greatest length of a row.
    """

    def __init__(self, tokenizer: Any, max_seq_len: int) -> None:
        self.tokenizer = tokenizer
        self.max_seq_len = max_seq_len

    def answer_rows(self, question: str, answers: Sequence[str]) -> list[Row]:
        """``[CLS] question [SEP] answer [SEP]`` of each answer.

        Returns:
            Per answer its ids and types, 0 up to the answer, 1 from it on.
        """
        first, *choices = self.retokenize_and_convert_to_ids([question, *answers])
        rows = []
        for choice in choices:
            pair = (list(first), list(choice))
            self.saw(*pair)
            self.truncate_seq_pair(*pair)
            rows.append(self._joined(*pair))
        return rows

    def rationale_rows(
        self, question: str, answers: Sequence[str], rationales: Sequence[str]
    ) -> list[Row]:
        """``[CLS] question [SEP] answer [SEP] rationale [SEP]`` of each answer and rationale.

        Returns:
            Per answer and rationale, those of the first answer first, ids and types, 0 up to the
            rationale, 1 from it on.
        """
        first, *rest = self.retokenize_and_convert_to_ids([question, *answers, *rationales])
        rows = []
        for answer in rest[: len(answers)]:
            for reason in rest[len(answers) :]:
                triple = (list(first), [self.tokenizer.sep_token_id, *answer], list(reason))
                self.saw(*triple)
                self.truncate_seq_tri(*triple)
                rows.append(self._joined(triple[0] + triple[1], triple[2]))
        return rows

    def saw(self, *parts: list[int]) -> None:
        """Called with the parts of every row before they are cut."""

    def retokenize_and_convert_to_ids(self, texts: list[str]) -> list[list[int]]:
        """Word pieces of texts, without special tokens."""
        return self.tokenizer.encode_batch(texts)

    def truncate_seq_pair(self, first: list[int], second: list[int]) -> None:
        """Shorten two texts in place until both fit: the longer one, the first if equal."""
        while len(first) + len(second) > self.max_seq_len - 3:
            (second if len(second) > len(first) else first).pop()

    def truncate_seq_tri(
        self, question: list[int], answer: list[int], rationale: list[int]
    ) -> None:
        """Shorten three texts in place until all fit.

        The rationale goes first while it is longer than the two others together, then the
        question but for one piece, then the answer.
        """
        while len(question) + len(answer) + len(rationale) > self.max_seq_len - 3:
            if len(rationale) > len(question) + len(answer):
                rationale.pop()
            elif len(question) > 1:
                question.pop()
            else:
                answer.pop()

    def _joined(self, first: list[int], second: list[int]) -> Row:
        pieces = self.tokenizer.add_special_tokens_sentences_pair(first, second)
        return [pieces, [0] * (len(first) + 2) + [1] * (len(second) + 1)]
