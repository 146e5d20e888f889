"""The evaluator of chosen answers and rationales."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xmodaler.config import kfg
from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.evaluation.result_files import canonical_id, results_by_id, write_results
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["VCREvaler", "leaderboard_rows"]

CHOICES = 4
ANSWER_COLUMNS = [f"answer_{i}" for i in range(CHOICES)]
RATIONALE_COLUMNS = [
    f"rationale_conditioned_on_a{a}_{i}" for a in range(CHOICES) for i in range(CHOICES)
]


@EVALUATION_REGISTRY.register()
class VCREvaler:
    """Accuracies of Q->A, QA->R and Q->AR (Zellers et al., CVPR 2019, section 3).

    Q->AR counts a question where the chosen answer and the chosen rationale are both right. The
    rationale is chosen given the right answer, as in the public evaluation.

    Args:
        cfg: The root config; reads ``INFERENCE.{ID_KEY, VALUE}``.
        annfile: The split as JSON lines, for its labels where results bring none and for the full
            names of the questions; '' where neither is needed.
        output_dir: Choices are written to ``<output_dir>/results/{epoch}.json`` as
            ``[{"question_id", "answer", "rationale"}]``; None or '' writes none.

    Attributes:
        result_prefix: Put before the epoch in the names of result files, to tell splits apart.
        correct: After :meth:`eval`, by question id whether (answer, rationale) were right.
    """

    def __init__(self, cfg: Any, annfile: str = "", output_dir: str | None = None) -> None:
        self.annfile = expand_path(annfile) if annfile else ""
        self.id_key = cfg.INFERENCE.ID_KEY
        self.value_key = cfg.INFERENCE.VALUE
        self.output_dir = output_dir or ""
        self.result_prefix = ""
        self.correct: dict[str, tuple[bool, bool]] = {}
        self._records: dict[str, Mapping[str, Any]] | None = None
        if self.annfile and not os.path.isfile(self.annfile):
            raise UserError(
                f"the questions '{annfile}' do not exist; INFERENCE.VAL_ANNFILE and "
                "INFERENCE.TEST_ANNFILE must name VCR JSON lines, or be '' where results bring "
                "their labels"
            )

    def eval(
        self, results_list: Sequence[Sequence[Mapping[str, Any]]], epoch: int = -1
    ) -> dict[str, float]:
        """Writes the choices, counts the right ones and prints the accuracies.

        Args:
            results_list: Results of Q->A and results of QA->R, each a list of ``{ID_KEY: id,
                VALUE: number of the choice, "U_TARGET_IDS": number of the right one}``; the last
                may be missing where the annotations know it.
            epoch: Names the result file; -1 outside of training.

        Returns:
            ``Q -> A``, ``QA -> R``, ``Q -> AR`` as fractions; empty where no labels are known.

        Raises:
            UserError: There are not two lists, or a result is malformed or comes twice.
        """
        if len(results_list) != 2:
            raise UserError(
                f"{len(results_list)} lists of results were given; VCR has two, of Q->A and QA->R"
            )
        answers, rationales = (
            results_by_id(results, self.id_key, self.value_key, "question")
            for results in results_list
        )
        self._write(answers, rationales, epoch)
        right = [
            self._labels(results, name)
            for results, name in zip(results_list, ("answer_label", "rationale_label"), strict=True)
        ]
        if None in right:
            return {}
        metrics = self._score(answers, rationales, *right)
        # A reader that has closed the pipe, as `| head` does, must not end a training.
        with contextlib.suppress(BrokenPipeError):
            for name, value in metrics.items():
                print(f"{name}: {value:.4f}")
        return metrics

    def _score(
        self,
        answers: Mapping[str, Any],
        rationales: Mapping[str, Any],
        right_answers: Mapping[str, int],
        right_rationales: Mapping[str, int],
    ) -> dict[str, float]:
        good_answers = {key: int(choice) == right_answers[key] for key, choice in answers.items()}
        good_rationales = {
            key: int(choice) == right_rationales[key] for key, choice in rationales.items()
        }
        # A question of which one half is missing is not answered right as a whole.
        self.correct = {
            key: (good, good_rationales.get(key, False)) for key, good in good_answers.items()
        }
        return {
            "Q -> A": _share(good_answers.values()),
            "QA -> R": _share(good_rationales.values()),
            "Q -> AR": _share(all(pair) for pair in self.correct.values()),
        }

    def _labels(self, results: Sequence[Mapping[str, Any]], name: str) -> dict[str, int] | None:
        """The right choices by id, or None where nobody knows them."""
        if all(kfg.U_TARGET_IDS in result for result in results):
            return {
                canonical_id(result[self.id_key]): int(np.asarray(result[kfg.U_TARGET_IDS]).item())
                for result in results
            }
        labels = {}
        for result in results:
            key = canonical_id(result[self.id_key])
            record = self.records.get(key)
            if record is None and self.records:
                raise UserError(f"question {key} is not in '{self.annfile}'")
            if record is None or name not in record:
                return None
            labels[key] = int(record[name])
        return labels

    @property
    def records(self) -> dict[str, Mapping[str, Any]]:
        """The annotations by the number in ``annot_id``; empty without a file."""
        if self._records is None:
            self._records = _read_records(self.annfile) if self.annfile else {}
        return self._records

    def _write(self, answers: Mapping[str, Any], rationales: Mapping[str, Any], epoch: int) -> None:
        choices = [
            {
                "question_id": self.records.get(key, {}).get("annot_id", key),
                "answer": int(choice),
                "rationale": int(rationales[key]) if key in rationales else None,
            }
            for key, choice in answers.items()
        ]
        write_results(self.output_dir, f"{self.result_prefix}{epoch}.json", choices)

    def write_leaderboard(
        self,
        answer_scores: Mapping[Any, Sequence[float]],
        rationale_scores: Mapping[Any, Sequence[Sequence[float]]],
        name: str = "leaderboard.csv",
    ) -> str:
        """Writes the file that the leaderboard takes to ``<output_dir>/results/<name>``.

        Args:
            answer_scores: Scores of the 4 answers by question id.
            rationale_scores: Scores ``(4, 4)`` by question id: a row for each answer that the 4
                rationales were scored with.
            name: Of the file.

        Returns:
            Its path.
        """
        names = {key: record["annot_id"] for key, record in self.records.items()}
        rows = leaderboard_rows(answer_scores, rationale_scores, names)

        def dump(rows: list[dict[str, Any]], file: Any) -> None:
            columns = ["annot_id", *ANSWER_COLUMNS, *RATIONALE_COLUMNS]
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

        return write_results(self.output_dir or ".", name, rows, dump)


def leaderboard_rows(
    answer_scores: Mapping[Any, Sequence[float]],
    rationale_scores: Mapping[Any, Sequence[Sequence[float]]],
    names: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """The lines of a leaderboard file: probabilities of answers and of rationales given each.

    Args:
        answer_scores: Scores (logits) of the 4 answers by question id.
        rationale_scores: Scores ``(4, 4)`` by question id: answer by rationale.
        names: Full names of the questions by id, such as ``test-17``; ids stand for themselves.

    Raises:
        UserError: A question lacks one of the two, or has not 4 choices.
    """
    rows = []
    for key, scores in answer_scores.items():
        given = np.asarray(scores, dtype=np.float64)
        conditioned = np.asarray(rationale_scores.get(key, ()), dtype=np.float64)
        if given.shape != (CHOICES,) or conditioned.shape != (CHOICES, CHOICES):
            raise UserError(
                f"question {key} has answer scores of shape {given.shape} and rationale scores of "
                f"shape {conditioned.shape}; the leaderboard takes (4,) and (4, 4)"
            )
        values = [*_softmax(given), *_softmax(conditioned).flatten()]
        columns = [*ANSWER_COLUMNS, *RATIONALE_COLUMNS]
        name = (names or {}).get(canonical_id(key), str(key))
        rows.append({"annot_id": name, **dict(zip(columns, map(float, values), strict=True))})
    return rows


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def _share(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def _read_records(path: str) -> dict[str, Mapping[str, Any]]:
    records = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                # Results are named by the number alone: train-17 is 17.
                records[canonical_id(str(record["annot_id"]).rpartition("-")[2])] = record
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(
                    f"line {number} of '{path}' is no VCR record with an annot_id: {error}"
                ) from error
    return records
