"""Ten people who answer a question: most are right, some guess, some use another word."""

from __future__ import annotations

from collections import Counter
from typing import Any

from xmodaler.datasets.synthetic.chance import RandomChooser
from xmodaler.datasets.synthetic.question_language import ENGLISH_QUESTIONS, SYNONYMS
from xmodaler.datasets.synthetic.questions import (
    COUNTS,
    NUMBER,
    OTHER,
    TOPICS,
    YES_NO,
    Question,
)

ANNOTATORS = 10
# How likely each annotator is right: most questions are easy, some are not. Who answers yes or no
# has one way to err only, so fewer do.
_RELIABILITY = {
    YES_NO: [(0.85, 0.97), (0.12, 0.85), (0.03, 0.65)],
    NUMBER: [(0.75, 0.95), (0.17, 0.65), (0.08, 0.4)],
    OTHER: [(0.75, 0.95), (0.15, 0.6), (0.1, 0.25)],
}
_SYNONYM = 0.08


def annotate(question: Question, chooser: RandomChooser) -> list[dict[str, Any]]:
    """The answers of ten annotators as VQA v2 writes them.

    Args:
        question: The question with what is true.
        chooser: Decides who errs.

    Returns:
        Ten records of ``answer``, ``answer_confidence`` and ``answer_id`` from 1.
    """
    reliability = chooser.pick(_RELIABILITY[question.answer_type])
    records = []
    for number in range(1, ANNOTATORS + 1):
        right = chooser.rng.random() < reliability
        answer = question.answer if right else _mistake(question, chooser)
        word = ENGLISH_QUESTIONS.answer(answer)
        if word in SYNONYMS and chooser.rng.random() < _SYNONYM:
            word = SYNONYMS[word]
        sure = chooser.pick([(0.85, "yes"), (0.1, "maybe"), (0.05, "no")] if right else
                            [(0.3, "yes"), (0.5, "maybe"), (0.2, "no")])  # fmt: skip
        records.append({"answer": word, "answer_confidence": sure, "answer_id": number})
    return records


def commonest(records: list[dict[str, Any]]) -> str:
    """The answer that most annotators gave, the first of equals."""
    return Counter(record["answer"] for record in records).most_common(1)[0][0]


def _mistake(question: Question, chooser: RandomChooser) -> str:
    """Another answer of the same kind; who miscounts does so by one."""
    options = [option for option in TOPICS[question.topic][1] if option != question.answer]
    if question.answer_type == NUMBER:
        place = COUNTS.index(question.answer)
        options = [COUNTS[k] for k in (place - 1, place + 1) if 0 <= k < len(COUNTS)]
    return chooser.one_of(options)
