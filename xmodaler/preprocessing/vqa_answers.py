"""The answer vocabulary of a VQA data set and the soft targets of its questions."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodaler.datasets.annotations import Problem, read_json
from xmodaler.datasets.answer_files import ANS2LABEL, LABEL2ANS, vocabulary_mark
from xmodaler.datasets.picture_lists import read_picture_list
from xmodaler.datasets.vqa_annotations import (
    ANSWER_TYPES,
    AnsweredQuestion,
    read_annotations,
    soft_target,
)
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError

_LISTED = 10


def build_vocabulary(
    questions: Iterable[AnsweredQuestion], min_count: int = 9, max_answers: int = 0
) -> list[str]:
    """The answers that a classifier chooses from.

    An answer is kept when it is the most frequent one of at least ``min_count`` questions; with
    9 and the train and val questions of VQA v2 these are the usual 3129 (Teney et al., "Tips and
    Tricks for Visual Question Answering", CVPR 2018, section 3.2).

    Args:
        questions: Those that count.
        min_count: Least number of questions.
        max_answers: Keep the most frequent ones only; all when not positive.

    Returns:
        Normalised answers, the most frequent first, ties by the alphabet.

    Raises:
        UserError: No answer is frequent enough.
    """
    counts = Counter(question.common for question in questions if question.common)
    kept = [answer for answer, count in counts.items() if count >= min_count]
    if not kept:
        most = max(counts.values(), default=0)
        raise UserError(
            f"no answer is that of {min_count} questions, the most frequent is that of {most}; "
            "give a smaller --min-count"
        )
    kept.sort(key=lambda answer: (-counts[answer], answer))
    return kept[: max_answers if max_answers > 0 else None]


@dataclass
class Summary:
    """What a run read and wrote.

    Attributes:
        answers: Size of the vocabulary.
        questions: Number of questions by stage.
        reachable: Best accuracy that the vocabulary allows, by stage.
        outside: Questions none of whose answers are in the vocabulary, by stage.
        unknown_types: Answer types other than the three of VQA v2, with their numbers.
        problems: What was left out, and why.
        files: The files that were written.
    """

    answers: int = 0
    questions: dict[str, int] = field(default_factory=dict)
    reachable: dict[str, float] = field(default_factory=dict)
    outside: dict[str, int] = field(default_factory=dict)
    unknown_types: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    files: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [f"left out {problem}" for problem in self.problems[:_LISTED]]
        if len(self.problems) > _LISTED:
            lines.append(f"left out {len(self.problems) - _LISTED} more")
        lines.extend(
            f"note: {count} questions have the answer type '{name}', not one of "
            f"{', '.join(ANSWER_TYPES)}"
            for name, count in self.unknown_types.items()
        )
        lines.extend(
            f"{stage}: {count} questions, {self.outside[stage]} with no answer of the vocabulary; "
            f"the best possible accuracy is {self.reachable[stage]:.4f}"
            for stage, count in self.questions.items()
        )
        lines.append(f"{self.answers} answers; set MODEL.MM_PREDICTOR.LABELS_NUM {self.answers}")
        lines.extend(f"wrote {name}" for name in self.files)
        return "\n".join(lines)


def read_stages(
    sources: Sequence[str], picture_list: str | None = None
) -> tuple[dict[str, list[AnsweredQuestion]], list[Problem]]:
    """The questions of every stage.

    Args:
        sources: ``STAGE=FILE``, or files whose questions the splits of their pictures share out.
        picture_list: JSON whose ``images[]`` have ``id`` and ``split``; needed for the latter.

    Raises:
        UserError: A file is unusable, or it is not said which stage a question is of.
    """
    splits = read_picture_list(picture_list).splits if picture_list else {}
    stages: dict[str, list[AnsweredQuestion]] = {}
    problems = []
    for source in sources:
        stage, equals, path = source.partition("=")
        if not equals and not picture_list:
            raise UserError(
                f"--annotations {source} does not say its stage; write train={source}, or give "
                "--images with the split of every picture"
            )
        questions, found = read_annotations(path if equals else source)
        problems.extend(found)
        for question in questions:
            split = stage if equals else splits.get(str(question.image_id))
            if split is None:
                where = f"question {question.question_id}"
                reason = f"its picture {question.image_id} is not in '{picture_list}'"
                problems.append(Problem(where, reason, where))
            else:
                stages.setdefault(split, []).append(question)
    return stages, problems


def counted_questions(
    stages: Mapping[str, Sequence[AnsweredQuestion]], names: Sequence[str] | None = None
) -> list[AnsweredQuestion]:
    """The questions whose answers make the vocabulary.

    Args:
        stages: Questions by stage.
        names: The stages that count; by default ``train`` and ``val``.

    Raises:
        UserError: There is no such stage.
    """
    chosen = names or [name for name in ("train", "val") if name in stages]
    unknown = [name for name in chosen if name not in stages]
    if unknown or not chosen:
        raise UserError(
            f"there are no questions of {', '.join(unknown) or 'train or val'} to count answers "
            f"in; there are {', '.join(stages) or 'none'}"
        )
    return [question for name in chosen for question in stages[name]]


def write_answer_files(
    stages: Mapping[str, Sequence[AnsweredQuestion]],
    answers: Sequence[str],
    out: str | os.PathLike,
    problems: Sequence[Problem] = (),
    max_bad_fraction: float = 0.01,
) -> Summary:
    """Write the vocabulary and ``<stage>_target.json`` of every stage.

    Args:
        stages: Questions by stage.
        answers: The vocabulary, see :func:`build_vocabulary`.
        out: The folder; made where it does not exist.
        problems: What was wrong with other questions.
        max_bad_fraction: A greater part of unusable questions stops the run.

    Raises:
        UserError: Too many questions are unusable, or the folder holds files of another
            vocabulary that this run would not replace.
    """
    total = sum(len(questions) for questions in stages.values())
    if not total or len(problems) > max_bad_fraction * (total + len(problems)):
        first = f", the first: {problems[0]}" if problems else ""
        raise UserError(
            f"{len(problems)} of {total + len(problems)} questions are unusable{first}; "
            f"at most {max_bad_fraction:.0%} may be"
        )
    out = Path(out)
    mark = vocabulary_mark(answers)
    _refuse_mixed_vocabularies(out, stages, answers, mark)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder '{out}' cannot be made: {error.strerror}") from None
    ans2label = {answer: label for label, answer in enumerate(answers)}
    summary = Summary(answers=len(answers), problems=list(problems))
    contents: dict[str, Any] = {LABEL2ANS: list(answers), ANS2LABEL: ans2label}
    for stage, questions in stages.items():
        targets = [soft_target(question, ans2label) for question in questions]
        contents[f"{stage}_target"] = {
            "vocabulary": mark, "answers": len(answers), "targets": targets
        }  # fmt: skip
        summary.questions[stage] = len(targets)
        best = [max(target["scores"], default=0.0) for target in targets]
        summary.reachable[stage] = sum(best) / max(1, len(best))
        summary.outside[stage] = sum(not target["labels"] for target in targets)
        kinds = (question.answer_type for question in questions)
        summary.unknown_types.update(kind for kind in kinds if kind not in ANSWER_TYPES)
    for name, content in contents.items():
        path = out / f"{name}.json"
        with atomic_write(path, "w") as file:
            json.dump(content, file)
        summary.files.append(str(path))
    return summary


def _refuse_mixed_vocabularies(
    out: Path, stages: Iterable[str], answers: Sequence[str], mark: str
) -> None:
    replaced = {f"{stage}_target.json" for stage in stages}
    for path in sorted(out.glob("*_target.json")):
        if path.name in replaced:
            continue
        content = read_json(path)
        if isinstance(content, dict) and content.get("vocabulary") != mark:
            raise UserError(
                f"'{path}' has labels of another vocabulary ({content.get('answers')} answers, "
                f"this one has {len(answers)}); make all targets of a folder in one run, or give "
                f"--answers '{out / LABEL2ANS}.json' to keep its vocabulary"
            )
