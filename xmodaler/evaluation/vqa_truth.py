"""What people answered to questions, from official annotations or from targets."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmodaler.evaluation.vqa_normalize import vqa_accuracy
from xmodaler.utils import safe_pickle
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["VQATruth", "read_label_answers", "read_truth"]

logger = logging.getLogger(__name__)

RELEASED_ANSWERS = "trainval_label2ans.pkl"


@dataclass(frozen=True)
class VQATruth:
    """The right answers to one question.

    Attributes:
        people: What each person answered, as written.
        scores: Accuracy by answer, where it was computed before; then ``people`` is not used.
        answer_type: yes/no, number, other; '' where unknown.
        question_type: How the question begins; '' where unknown.
    """

    people: tuple[str, ...] = ()
    scores: Mapping[str, float] | None = None
    answer_type: str = ""
    question_type: str = ""

    @property
    def can_score(self) -> bool:
        """Whether anybody has answered."""
        return self.scores is not None or bool(self.people)

    def accuracy(self, answer: str) -> float:
        """The accuracy of one answer, in [0, 1]."""
        if self.scores is not None:
            return self.scores.get(answer, 0.0)
        return vqa_accuracy(answer, self.people)


def read_truth(path: str, label_answers: Callable[[], Sequence[str]]) -> dict[str, VQATruth]:
    """Reads a file of answers.

    Args:
        path: Official annotations, targets, or an official questions file (which has no answers).
        label_answers: Gives the answer of every label, which targets are written in.

    Returns:
        By question id, as a string.

    Raises:
        UserError: It is none of these, or an entry is malformed.
    """
    content = _load(path)
    if isinstance(content, Mapping) and "annotations" in content:
        entries, read = content["annotations"], _of_annotation
    elif isinstance(content, Mapping) and "questions" in content:
        return {}
    elif isinstance(content, list):
        answers = label_answers()
        entries, read = content, lambda entry: _of_target(entry, answers)
    else:
        raise UserError(
            f"'{path}' holds neither VQA annotations (JSON with 'annotations') nor targets (a list "
            "of question_id, labels, scores)"
        )
    truths: dict[str, VQATruth] = {}
    for number, entry in enumerate(entries):
        try:
            truths[str(int(entry["question_id"]))] = read(entry)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(
                f"entry {number} of '{path}' cannot be read as the answers to a question: "
                f"{type(error).__name__} {error}"
            ) from error
    if silent := sum(not truth.can_score for truth in truths.values()):
        logger.warning("%d questions of '%s' have no answers: not scored", silent, path)
    return truths


def read_label_answers(cfg: Any) -> list[str]:
    """The answers that the labels of a model stand for.

    Args:
        cfg: The root config; reads ``DATALOADER.{ANSWERS, ANNO_FOLDER}``.

    Raises:
        UserError: There is no such file, or it is no list of texts.
    """
    loader = cfg.DATALOADER
    named = loader.get("ANSWERS", "")
    path = expand_path(named or os.path.join(loader.ANNO_FOLDER, RELEASED_ANSWERS))
    if not os.path.isfile(path):
        raise UserError(
            f"the answer vocabulary '{path}' does not exist; DATALOADER.ANSWERS must name one, or "
            f"DATALOADER.ANNO_FOLDER hold {RELEASED_ANSWERS}"
        )
    answers = _load(path)
    if not isinstance(answers, list) or not all(isinstance(text, str) for text in answers):
        raise UserError(f"the answer vocabulary '{path}' is no list of texts")
    return answers


def _load(path: str) -> Any:
    if not path.endswith(".json"):
        return safe_pickle.load(path, encoding="utf-8")
    try:
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' cannot be read as JSON: {error}") from error


def _of_annotation(entry: Mapping[str, Any]) -> VQATruth:
    return VQATruth(
        tuple(str(person["answer"]) for person in entry["answers"]),
        answer_type=str(entry.get("answer_type", "")),
        question_type=str(entry.get("question_type", "")),
    )


def _of_target(entry: Mapping[str, Any], answers: Sequence[str]) -> VQATruth:
    labels, scores = entry["labels"], entry["scores"]
    outside = [label for label in labels if not 0 <= label < len(answers)]
    if outside:
        raise IndexError(
            f"label {outside[0]} is outside the answer vocabulary of {len(answers)} entries; the "
            "targets were made for another one"
        )
    pairs = zip(labels, scores, strict=True)
    return VQATruth(scores={answers[label]: float(score) for label, score in pairs})
