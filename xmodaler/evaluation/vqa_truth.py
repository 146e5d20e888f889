"""What people answered to questions, from official annotations or from targets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xmodaler.datasets.annotations import Problem, read_json
from xmodaler.datasets.answer_files import label2ans_path, read_label2ans, read_targets
from xmodaler.datasets.tasks.task_files import TaskFile, task_files
from xmodaler.datasets.tasks.vqa import question_name
from xmodaler.datasets.vqa_annotations import read_annotations
from xmodaler.evaluation.result_files import canonical_id
from xmodaler.evaluation.vqa_normalize import vqa_accuracy
from xmodaler.utils.errors import UserError

__all__ = ["VQATruth", "read_label_answers", "read_truth"]

logger = logging.getLogger(__name__)


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

    @property
    def given(self) -> Collection[str]:
        """The answers that are right to some degree."""
        if self.scores is not None:
            return [answer for answer, score in self.scores.items() if score > 0]
        return self.people

    def accuracy(self, answer: str) -> float:
        """The accuracy of one answer, in [0, 1]."""
        if self.scores is not None:
            return self.scores.get(answer, 0.0)
        return vqa_accuracy(answer, self.people)


def read_truth(path: str, label_answers: Callable[[], Sequence[str]]) -> dict[str, VQATruth]:
    """Reads a file of answers.

    Args:
        path: Official annotations, targets, an official questions file (which has no answers), or
            records with ``question`` and ``answer`` as ``JsonVQADataset`` reads them; or several
            of these, see :func:`~xmodaler.datasets.tasks.task_files.task_files`.
        label_answers: Gives the answer of every label, which targets are written in.

    Returns:
        By question id, as a string. Questions without usable answers are there, but cannot be
        scored; a warning counts them.

    Raises:
        UserError: It is none of these, or its labels belong to another vocabulary.
    """
    truths: dict[str, VQATruth] = {}
    for file in task_files(path):
        truths.update(_of_file(file, label_answers))
    return truths


def _of_file(file: TaskFile, label_answers: Callable[[], Sequence[str]]) -> dict[str, VQATruth]:
    path = file.path
    content = read_json(path) if path.endswith(".json") else []
    if (records := _answered_records(content)) is not None:
        return {
            canonical_id(question_name(key, file.name)): truth for key, truth in records.items()
        }
    kind = content if isinstance(content, dict) else {"targets": content}
    if "questions" in kind:
        return {}
    if "annotations" in kind:
        truths, problems = _of_annotations(path)
        entries = [entry for entry in kind["annotations"] if isinstance(entry, dict)]
        for entry in entries if problems else ():
            truths.setdefault(canonical_id(entry.get("question_id")), VQATruth())
    elif "targets" in kind:
        truths, problems = _of_targets(path, label_answers())
    else:
        raise UserError(
            f"'{path}' holds neither VQA annotations (JSON with 'annotations') nor targets (a list "
            "of question_id, labels, scores) nor questions with their answers"
        )
    if problems:
        logger.warning(
            "%d questions of '%s' have no usable answers and are not scored; the first: %s",
            len(problems),
            path,
            problems[0],
        )
    return truths


def _answered_records(content: Any) -> dict[Any, VQATruth] | None:
    """Answers of records with questions, by id; None where this is something else."""
    if isinstance(content, dict):
        entries = [
            {"question_id": key, **entry} for key, entry in content.items() if _is_asked(entry)
        ]
        if not entries or len(entries) < len(content):
            return None
    else:
        entries = [entry for entry in content if _is_asked(entry) and "question_id" in entry]
        if not entries:
            return None
    return {entry["question_id"]: _of_entry(entry) for entry in entries}


def _is_asked(entry: Any) -> bool:
    return isinstance(entry, dict) and ("question" in entry or "sent" in entry)


def _of_entry(entry: Mapping[str, Any]) -> VQATruth:
    answer = entry.get("label", entry.get("answer"))
    if isinstance(answer, str):
        return VQATruth(scores={answer: 1.0})
    if isinstance(answer, Mapping):
        return VQATruth(scores={text: float(score) for text, score in answer.items()})
    if isinstance(answer, list) and all(isinstance(text, str) for text in answer):
        return VQATruth(people=tuple(answer))
    return VQATruth()


def read_label_answers(cfg: Any) -> list[str]:
    """The answers that the labels of a model stand for.

    Args:
        cfg: The root config; reads ``DATALOADER.{ANSWERS, ANNO_FOLDER}``.

    Raises:
        UserError: There is no such file, or it is no list of texts.
    """
    return read_label2ans(label2ans_path(cfg))


def _of_annotations(path: str) -> tuple[dict[str, VQATruth], list[Problem]]:
    questions, problems = read_annotations(path)
    truths = {
        canonical_id(question.question_id): VQATruth(
            tuple(question.answers),
            answer_type=question.answer_type,
            question_type=question.question_type,
        )
        for question in questions
    }
    return truths, problems


def _of_targets(path: str, answers: Sequence[str]) -> tuple[dict[str, VQATruth], list[Problem]]:
    targets, problems = read_targets(path, answers)
    truths = {
        canonical_id(target["question_id"]): VQATruth(
            scores={
                answers[label]: float(score)
                for label, score in zip(target["labels"], target["scores"], strict=True)
            },
            answer_type=str(target.get("answer_type") or ""),
            question_type=str(target.get("question_type") or ""),
        )
        for target in targets
    }
    return truths, problems
