"""Answer vocabularies and soft targets of VQA: JSON, and the pickles that were released.

==========================  =====================================================================
``trainval_label2ans``      list of answers; an answer's place is its label
``trainval_ans2label``      object from answer to label
``<stage>_target``          list of ``{question_id, image_id, labels, scores}``; as JSON an object
                            ``{"vocabulary", "answers", "targets"}``, whose ``vocabulary`` tells
                            which list of answers the labels belong to
==========================  =====================================================================
"""

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .annotations import Problem, read_json

LABEL2ANS = "trainval_label2ans"
ANS2LABEL = "trainval_ans2label"


def vocabulary_mark(answers: Sequence[str]) -> str:
    """A short mark that differs between different lists of answers."""
    return hashlib.sha256("\n".join(answers).encode("utf-8")).hexdigest()[:16]


def json_or_pickle(path: str | os.PathLike) -> str:
    """The file at a path, or the same with the other of ``.json`` and ``.pkl``.

    Raises:
        UserError: There is neither.
    """
    path = expand_path(path)
    stem, suffix = os.path.splitext(path)
    if suffix not in (".json", ".pkl"):
        stem = path
    choices = [path, stem + ".json", stem + ".pkl"]
    found = next((name for name in choices if os.path.isfile(name)), None)
    if found is None:
        raise UserError(
            f"'{stem}.json' (or .pkl) does not exist; tools/build_answers.py writes the answers "
            "and targets of a VQA data set"
        )
    return found


def label2ans_path(cfg: CfgNode) -> str:
    """Where the config has its answers: DATALOADER.ANSWERS, else the released name."""
    loader = cfg.DATALOADER
    return loader.get("ANSWERS", "") or os.path.join(loader.ANNO_FOLDER, LABEL2ANS)


def read_label2ans(path: str | os.PathLike) -> list[str]:
    """The answers by label, from a list or from an object from answers to labels.

    Raises:
        UserError: It cannot be read, is no list of different strings, or an ``ans2label`` beside
            it says otherwise.
    """
    found = json_or_pickle(path)
    content = _read(found)
    if isinstance(content, dict) and all(_is_int(label) for label in content.values()):
        content = _by_label(content)
    if not isinstance(content, list) or not content:
        raise UserError(f"'{found}' is not a list of answers, one for each label")
    wrong = next((answer for answer in content if not isinstance(answer, str)), None)
    if wrong is not None:
        raise UserError(f"'{found}' holds {wrong!r}, which is not an answer")
    if len(set(content)) != len(content):
        twice = next(answer for answer in content if content.count(answer) > 1)
        raise UserError(f"'{found}' gives two labels to the answer '{twice}'")
    _check_twin(found, content)
    return content


def _by_label(labels: dict[str, int]) -> list[str]:
    """The answers of an object from answers to labels; as they stand there if these have gaps."""
    if sorted(labels.values()) == list(range(len(labels))):
        return sorted(labels, key=labels.__getitem__)
    return list(labels)


def _check_twin(path: str, answers: list[str]) -> None:
    folder, name = os.path.split(path)
    twin = os.path.join(folder, name.replace("label2ans", "ans2label"))
    if twin == path or not os.path.isfile(twin):
        return
    labels = read_ans2label(twin)
    if labels != {answer: label for label, answer in enumerate(answers)}:
        raise UserError(
            f"'{path}' and '{twin}' are of different vocabularies ({len(answers)} and "
            f"{len(labels)} answers); take both from one run of tools/build_answers.py"
        )


def read_ans2label(path: str | os.PathLike) -> dict[str, int]:
    """The label of each answer.

    Raises:
        UserError: It cannot be read or is no such mapping.
    """
    found = json_or_pickle(path)
    content = _read(found)
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and _is_int(value) for key, value in content.items()
    ):
        raise UserError(f"'{found}' is not an object from answers to labels")
    return {answer: int(label) for answer, label in content.items()}


def read_targets(
    path: str | os.PathLike, answers: Sequence[str] | None = None, num_labels: int | None = None
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The soft targets of questions.

    Args:
        path: Targets as JSON or pickle.
        answers: The vocabulary in use; targets of another are refused.
        num_labels: Number of labels in use; by default that of ``answers``.

    Returns:
        Dicts with ``question_id``, ``labels`` int64 (n,) and ``scores`` float32 (n,) and what
        else the file says (``image_id``, types), and what is wrong with others.

    Raises:
        UserError: The file is unreadable, of another form, or of another vocabulary.
    """
    found = json_or_pickle(path)
    content = _read(found)
    if num_labels is None and answers is not None:
        num_labels = len(answers)
    if isinstance(content, dict) and "targets" in content:
        _check_mark(found, content, answers)
        content = content["targets"]
    if not isinstance(content, list):
        raise UserError(f"'{found}' is not a list of targets; tools/build_answers.py writes one")
    targets, problems = [], []
    name = os.path.basename(found)
    largest = -1
    for k, entry in enumerate(content):
        try:
            target = _target(entry)
        except (ValueError, TypeError, OverflowError) as error:
            problems.append(Problem(f"{name} record {k}", str(error), f"record {k}"))
            continue
        largest = max(largest, int(target["labels"].max(initial=-1)))
        targets.append(target)
    if num_labels is not None and largest >= num_labels:
        raise UserError(
            f"'{found}' has the label {largest}, but the vocabulary in use has {num_labels} "
            "answers; answers and targets must come from one run of tools/build_answers.py"
        )
    return targets, problems


def _check_mark(path: str, content: dict[str, Any], answers: Sequence[str] | None) -> None:
    if answers is None:
        return
    if content.get("vocabulary") != vocabulary_mark(answers):
        raise UserError(
            f"'{path}' was made with another vocabulary ({content.get('answers')} answers) than "
            f"the one in use ({len(answers)} answers); answers and targets must come from one run "
            "of tools/build_answers.py"
        )


def _target(entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict) or "question_id" not in entry:
        raise ValueError("not an object with 'question_id'")
    labels = np.asarray(entry.get("labels", []) if entry.get("labels") is not None else [])
    scores = np.asarray(entry.get("scores", []) if entry.get("scores") is not None else [])
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"{labels.size} labels with {scores.size} scores")
    if labels.size and not np.issubdtype(labels.dtype, np.integer):
        raise ValueError("labels are not integers")
    labels, scores = labels.astype(np.int64), scores.astype(np.float32)
    if (labels < 0).any() or not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("labels must not be negative and scores lie in [0, 1]")
    return {**entry, "labels": labels, "scores": scores}


def _is_int(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _read(path: str) -> Any:
    if path.endswith(".pkl"):
        from xmodaler.utils import safe_pickle

        return _texts(safe_pickle.load(path, encoding="bytes"))
    return read_json(path)


def _texts(value: Any) -> Any:
    """Byte strings of Python 2 as text, in lists and objects."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, dict):
        return {_texts(key): _texts(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_texts(entry) for entry in value]
    return value
