"""Writing questions and answers as VQA v2 does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from xmodaler.datasets.answer_files import vocabulary_mark
from xmodaler.datasets.synthetic.annotators import annotate, commonest
from xmodaler.datasets.synthetic.chance import RandomChooser, generator
from xmodaler.datasets.synthetic.files import write_json
from xmodaler.datasets.synthetic.question_language import ENGLISH_QUESTIONS
from xmodaler.datasets.synthetic.questions import (
    NUMBER,
    Question,
    balanced,
    candidate_questions,
)
from xmodaler.datasets.synthetic.scene import Scene
from xmodaler.functional.func_vqa import answer_scores

PER_PICTURE = 3  # at most one of them asks for a number


def sample_questions(
    scenes: Sequence[Scene], seed: int, split: str
) -> Iterator[tuple[int, Question, list[dict[str, Any]]]]:
    """The questions of a split.

    Args:
        scenes: All scenes of the split, in order.
        seed, split: Of the data set.

    Yields:
        Number of the scene, question, and its ten answers.
    """
    choosers = [
        RandomChooser(generator(seed, split, index, "questions")) for index in range(len(scenes))
    ]
    asked = [
        (index, question)
        for index, scene in enumerate(scenes)
        for question in candidate_questions(scene, choosers[index])
    ]
    kept: list[list[Question]] = [[] for _ in scenes]
    flags = balanced([question for _, question in asked])
    for (index, question), keep in zip(asked, flags, strict=True):
        if keep:
            kept[index].append(question)
    for index, questions in enumerate(kept):
        chooser = choosers[index]
        numbers = [question for question in questions if question.answer_type == NUMBER]
        others = [question for question in questions if question.answer_type != NUMBER]
        order = chooser.rng.permutation(len(others))[: PER_PICTURE - len(numbers)]
        for question in [*numbers, *(others[k] for k in sorted(order))]:
            yield index, question, annotate(question, chooser)


def write_vqa(
    folder: Path, scenes: Sequence[Scene], image_ids: Sequence[int], seed: int, split: str
) -> None:
    """Write the official files of questions and annotations, and the soft targets.

    Args:
        folder: Where to.
        scenes, image_ids: Of the split, in order.
        seed, split: Of the data set.
    """
    questions, annotations, targets = [], [], []
    vocabulary = ENGLISH_QUESTIONS.answers()
    numbers: dict[int, int] = {}
    for index, question, answers in sample_questions(scenes, seed, split):
        image_id = image_ids[index]
        number = numbers[index] = numbers.get(index, -1) + 1
        key = {"image_id": image_id, "question_id": image_id * 10 + number}
        types = {
            "question_type": ENGLISH_QUESTIONS.question_type(question),
            "answer_type": question.answer_type,
        }
        scores = answer_scores([record["answer"] for record in answers])
        known = {vocabulary.index(word): scores[word] for word in scores if word in vocabulary}
        questions.append({**key, "question": ENGLISH_QUESTIONS.question(question)})
        targets.append({**key, **types, "labels": list(known), "scores": list(known.values())})
        annotations.append(
            {
                **key,
                **types,
                "multiple_choice_answer": commonest(answers),
                "true_answer": ENGLISH_QUESTIONS.answer(question.answer),
                "answers": answers,
            }
        )
    head = {
        "info": {"description": f"shapes, {split} split, seed {seed}"},
        "license": {},
        "data_type": "shapes",
        "data_subtype": split,
    }
    write_json(
        folder / f"v2_OpenEnded_shapes_{split}_questions.json",
        {**head, "task_type": "Open-Ended", "questions": questions},
    )
    write_json(folder / f"v2_shapes_{split}_annotations.json", {**head, "annotations": annotations})
    mark = {"vocabulary": vocabulary_mark(vocabulary), "answers": len(vocabulary)}
    write_json(folder / f"{split}_target.json", {**mark, "targets": targets})


def write_answers(folder: Path) -> None:
    """Write ``answers.json``: every true answer there can be, the place in the list its label."""
    write_json(folder / "answers.json", ENGLISH_QUESTIONS.answers())
