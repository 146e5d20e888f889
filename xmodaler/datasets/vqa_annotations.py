"""Questions and the answers of people, as VQA v2 publishes them."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xmodaler.functional.func_vqa import answer_scores, normalize_answer
from xmodaler.utils.errors import UserError

from .annotations import Problem, read_json

ANSWER_TYPES = ("yes/no", "number", "other")


@dataclass
class AnsweredQuestion:
    """A question and what people answered.

    Attributes:
        question_id: Its id.
        image_id: That of its picture.
        answers: One answer a person, as written.
        common: The answer that the data set calls the most frequent, normalised.
        answer_type: ``yes/no``, ``number``, ``other``, or '' when the file does not say.
        question_type: Its first words as the data set groups them, or ''.
    """

    question_id: int | str
    image_id: int | str
    answers: list[str]
    common: str
    answer_type: str = ""
    question_type: str = ""


def read_annotations(path: str | os.PathLike) -> tuple[list[AnsweredQuestion], list[Problem]]:
    """The questions of an annotations file of VQA v2's form.

    ``{"annotations": [{"question_id", "image_id", "multiple_choice_answer", "answer_type",
    "question_type", "answers": [{"answer"}, ..]}]}``; an answer may be a plain string.

    Returns:
        The questions in file order, and what is wrong with others.

    Raises:
        UserError: The file is unreadable or of another form.
    """
    content = read_json(path)
    entries = content.get("annotations") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise UserError(
            f"'{path}' is no VQA annotations file: an object with the list 'annotations' is "
            "needed, each with 'question_id', 'image_id' and 'answers'"
        )
    name = os.path.basename(os.fspath(path))
    questions: dict[str, AnsweredQuestion] = {}
    problems = []
    for k, entry in enumerate(entries):
        where = f"{name} annotations[{k}]"
        try:
            question = _question(entry)
            if str(question.question_id) in questions:
                raise ValueError(f"the question {question.question_id} occurs twice")
        except ValueError as error:
            problems.append(Problem(where, str(error), where))
        else:
            questions[str(question.question_id)] = question
    if not questions and not problems:
        raise UserError(f"'{path}' holds no question with answers")
    return list(questions.values()), problems


def _question(entry: Any) -> AnsweredQuestion:
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    ids = [entry.get(key) for key in ("question_id", "image_id")]
    for key, value in zip(("question_id", "image_id"), ids, strict=True):
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise ValueError(f"no '{key}' that is an integer or a string")
    listed = entry.get("answers")
    if listed is None and isinstance(entry.get("multiple_choice_answer"), str):
        listed = [entry["multiple_choice_answer"]]
    if not isinstance(listed, list) or not listed:
        raise ValueError(f"the question {ids[0]} has no answers")
    answers = [one.get("answer") if isinstance(one, dict) else one for one in listed]
    if not all(isinstance(answer, str) for answer in answers):
        raise ValueError(f"an answer to the question {ids[0]} is not text")
    common = entry.get("multiple_choice_answer")
    if not isinstance(common, str):
        common = Counter(normalize_answer(answer) for answer in answers).most_common(1)[0][0]
    types = [str(entry.get(key) or "") for key in ("answer_type", "question_type")]
    return AnsweredQuestion(*ids, answers, normalize_answer(common), *types)


def soft_target(question: AnsweredQuestion, ans2label: Mapping[str, int]) -> dict[str, Any]:
    """Labels of the answers in the vocabulary and their leave-one-out scores."""
    scores = {
        ans2label[answer]: score
        for answer, score in answer_scores(question.answers).items()
        if answer in ans2label and score > 0
    }
    return {
        "question_id": question.question_id,
        "image_id": question.image_id,
        "labels": list(scores),
        "scores": [round(score, 6) for score in scores.values()],
        "answer_type": question.answer_type,
        "question_type": question.question_type,
    }
