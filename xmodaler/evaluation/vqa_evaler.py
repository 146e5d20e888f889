"""The evaluator of answers to questions about pictures."""

from __future__ import annotations

import contextlib
import logging
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from xmodaler.config import kfg
from xmodaler.datasets.tasks.task_files import task_files
from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.evaluation.result_files import (
    canonical_id,
    results_by_id,
    unknown_ids,
    write_results,
)
from xmodaler.evaluation.vqa_truth import VQATruth, read_label_answers, read_truth
from xmodaler.functional.func_vqa import normalize_answer
from xmodaler.utils.errors import UserError

__all__ = ["VQAEvaler"]

logger = logging.getLogger(__name__)
_MANY_UNREACHABLE = 0.2
"""Share of questions without a right answer in the list, above which a list looks wrong."""


@EVALUATION_REGISTRY.register()
class VQAEvaler:
    """VQA accuracy (Antol et al., ICCV 2015, section 3.3) and the result file of the server.

    Every question counts the average of ``min(1, others who answered so / 3)`` over the sets of
    people that leave one out, from the answers of all people (official annotations) or from scores
    that were computed before (targets).

    Args:
        cfg: The root config; reads ``INFERENCE.{ID_KEY, VALUE}`` and where the answers of a model's
            labels are: ``DATALOADER.ANSWERS``, else ``trainval_label2ans.pkl`` in
            ``DATALOADER.ANNO_FOLDER``.
        annfile: Official annotations (JSON with ``annotations``), targets (pickle or JSON list of
            ``{question_id, labels, scores}``), records with questions and answers, or '' or a
            questions file for a split without answers, of which results are only written.
        output_dir: Results are written to ``<output_dir>/results/{epoch}.json`` as
            ``[{"question_id", "answer"}]``, the format of the evaluation server, and the scores of
            all types to ``{epoch}_scores.json``; None or '' writes none.

    Attributes:
        truth_keys: What results bring along from the data, where these have it: languages.
        result_prefix: Put before the epoch in the names of result files, to tell splits apart.
        per_question: After :meth:`eval`, the accuracy of each question under its id as a string.
        per_answer_type: After :meth:`eval`, the accuracy by type of the answer: yes/no, number,
            other; empty where the annotations name no types.
        per_question_type: After :meth:`eval`, the accuracy by how the question begins.
    """

    truth_keys: tuple[str, ...] = (kfg.SPLITS,)

    def __init__(self, cfg: Any, annfile: str, output_dir: str | None = None) -> None:
        self.annfile = annfile or ""
        self.id_key = cfg.INFERENCE.ID_KEY
        self.value_key = cfg.INFERENCE.VALUE
        self.output_dir = output_dir or ""
        self.result_prefix = ""
        self.per_question: dict[str, float] = {}
        self.per_answer_type: dict[str, float] = {}
        self.per_question_type: dict[str, float] = {}
        self._cfg = cfg
        # Files are read on the first use, by the one process that scores.
        self._answers: list[str] | None = None
        self._truth: dict[str, VQATruth] | None = None
        files = task_files(self.annfile) if self.annfile else []
        if not all(os.path.isfile(file.path) for file in files):
            raise UserError(
                f"the answers '{annfile}' do not exist; INFERENCE.VAL_ANNFILE and "
                "INFERENCE.TEST_ANNFILE must name VQA annotations or targets, or be '' for a "
                "split without answers"
            )

    @property
    def truth(self) -> dict[str, VQATruth]:
        """What people answered, by question id; empty for a split without answers."""
        if self._truth is None:
            self._truth = read_truth(self.annfile, self._labels) if self.annfile else {}
        return self._truth

    def eval(self, results: Sequence[Mapping[str, Any]], epoch: int = -1) -> dict[str, Any]:
        """Writes the results, scores them and prints the accuracies.

        Args:
            results: One ``{ID_KEY: id, VALUE: answer}`` per question; an answer is the number of a
                label or a text.
            epoch: Names the result file; -1 outside of training.

        Returns:
            ``accuracy`` and, under ``answer_type``, that of each type, as fractions. As soon as the
            question of a result is unknown, ``accuracy`` is 0.0 and a warning says so: such a
            number would compare with no other. Without answers to compare with: empty. Of several
            languages also ``accuracy_<language>``, and ``accuracy_languages``, the mean of those
            that are not English.

        Raises:
            UserError: A result is malformed, a question has two, or an answer is outside the
                vocabulary.
        """
        values = results_by_id(results, self.id_key, self.value_key, "question")
        answers = {key: self._text(value, key) for key, value in values.items()}
        stem = f"{self.result_prefix}{epoch}"
        self._write(results, answers, stem)
        if not self.truth:
            logger.info("there are no answers to compare with: results are only written")
            return {}
        if problem := unknown_ids(answers, self.truth, "question", self.annfile):
            logger.warning("%s: the accuracy is reported as 0", problem)
            return {"accuracy": 0.0}
        if missing := len(self.truth) - len(answers):
            logger.info("%d of %d questions have no result", missing, len(self.truth))
        self._warn_of_unreachable(answers)
        metrics = {**self._score(answers), **self._by_language(results)}
        types = {"answer_type": self.per_answer_type, "question_type": self.per_question_type}
        write_results(self.output_dir, f"{stem}_scores.json", metrics | types)
        # A reader that has closed the pipe, as `| head` does, must not end a training.
        with contextlib.suppress(BrokenPipeError):
            print(f"accuracy: {metrics['accuracy']:.4f}")
            for name, value in self.per_answer_type.items():
                print(f"accuracy of {name}: {value:.4f}")
        return metrics

    def _score(self, answers: Mapping[str, str]) -> dict[str, Any]:
        by_answer_type, by_question_type = defaultdict(list), defaultdict(list)
        self.per_question = {}
        for key, answer in answers.items():
            truth = self.truth[key]
            if not truth.can_score:
                continue
            score = self.per_question[key] = truth.accuracy(answer)
            if truth.answer_type:
                by_answer_type[truth.answer_type].append(score)
            if truth.question_type:
                by_question_type[truth.question_type].append(score)
        self.per_answer_type = _means(by_answer_type)
        self.per_question_type = _means(by_question_type)
        scores = list(self.per_question.values())
        metrics: dict[str, Any] = {"accuracy": sum(scores) / len(scores) if scores else 0.0}
        if self.per_answer_type:
            metrics["answer_type"] = dict(self.per_answer_type)
        return metrics

    def _warn_of_unreachable(self, answers: Mapping[str, str]) -> None:
        """Tell where no answer of the model's list is right, so that no model can find one."""
        if self._answers is None:
            return
        known = {normalize_answer(answer) for answer in self._answers}
        truths = [self.truth[key] for key in answers if self.truth[key].can_score]
        lost = sum(known.isdisjoint(map(normalize_answer, truth.given)) for truth in truths)
        if lost > _MANY_UNREACHABLE * len(truths):
            logger.warning(
                "%d of %d questions have no right answer in the list of answers "
                "(DATALOADER.ANSWERS): whatever the model chooses is wrong",
                lost,
                len(truths),
            )

    def _by_language(self, results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        scores: dict[str, list[float]] = defaultdict(list)
        for result in results:
            key = canonical_id(result[self.id_key])
            if result.get(kfg.SPLITS) and key in self.per_question:
                scores[result[kfg.SPLITS]].append(self.per_question[key])
        found = _means(scores)
        metrics = {f"accuracy_{language}": value for language, value in found.items()}
        others = [value for language, value in found.items() if language != "en"]
        if others:
            metrics["accuracy_languages"] = sum(others) / len(others)
        return metrics

    def _write(
        self, results: Sequence[Mapping[str, Any]], answers: Mapping[str, str], stem: str
    ) -> None:
        lines = [
            {"question_id": result[self.id_key], "answer": answer}
            for result, answer in zip(results, answers.values(), strict=True)
        ]
        write_results(self.output_dir, f"{stem}.json", lines)

    def _labels(self) -> list[str]:
        if self._answers is None:
            self._answers = read_label_answers(self._cfg)
        return self._answers

    def _text(self, value: Any, key: str) -> str:
        if isinstance(value, str):
            return value
        try:
            label = int(value)
        except (TypeError, ValueError):
            raise UserError(
                f"the answer to question {key} is {value!r}; it is a text or the number of a label"
            ) from None
        known = self._labels()
        if not 0 <= label < len(known):
            raise UserError(
                f"the answer to question {key} is label {label}, but the answer vocabulary has "
                f"{len(known)} entries; it belongs to another model"
            )
        return known[label]


def _means(groups: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {name: sum(groups[name]) / len(groups[name]) for name in sorted(groups)}
