"""The evaluator of labels: true or false, entailment, answers out of a list."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from xmodaler.config import kfg
from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.evaluation.result_files import canonical_id, results_by_id, write_results
from xmodaler.utils.errors import UserError

__all__ = ["AccuracyEvaler", "share"]

logger = logging.getLogger(__name__)


@EVALUATION_REGISTRY.register()
class AccuracyEvaler:
    """The share of right labels, of all records and of every split of them.

    Every record counts once, whatever the number of processes. A right label below 0 is one that
    the model does not know, such as an answer outside the list: the record counts as wrong.

    Where several records test the same statement on different pictures, ``consistency`` is the
    share of statements of which all records are right (NLVR2, Suhr et al., ACL 2019, section 5).

    Args:
        cfg: The root config; reads ``INFERENCE.{ID_KEY, VALUE}``, and ``DATALOADER.ANSWERS`` for
            what labels stand for.
        annfile: Not read: results bring the right labels.
        output_dir: Results are written to ``<output_dir>/results/{epoch}.json``; None or '' writes
            none.

    Attributes:
        truth_keys: What results must bring along from the data, where these have it.
        result_prefix: Put before the epoch in the names of result files, to tell splits apart.
        correct: After :meth:`eval`, by id whether the label was right.
    """

    truth_keys: tuple[str, ...] = (kfg.U_TARGET_IDS, kfg.SPLITS, kfg.STATEMENT_IDS)

    def __init__(self, cfg: Any, annfile: str = "", output_dir: str | None = None) -> None:
        self.id_key = cfg.INFERENCE.ID_KEY
        self.value_key = cfg.INFERENCE.VALUE
        self.output_dir = output_dir or ""
        self.result_prefix = ""
        self.correct: dict[str, bool] = {}
        self._names = _label_names(cfg)

    def eval(self, results: Sequence[Mapping[str, Any]], epoch: int = -1) -> dict[str, Any]:
        """Writes the labels, counts the right ones and prints the shares.

        Args:
            results: One ``{ID_KEY: id, VALUE: label, "U_TARGET_IDS": right label}`` per record,
                optionally with ``SPLITS`` and ``STATEMENT_IDS``, names of its split and statement.
            epoch: Names the result file; -1 outside of training.

        Returns:
            ``accuracy``; ``accuracy_<split>`` where records name splits; ``consistency`` where
            they name statements; ``majority``, what answering the most frequent label would give;
            ``unknown``, how many right labels the model does not know, if there are such. Shares
            are fractions. Without right labels, as on a hidden test split: empty.

        Raises:
            UserError: A result is malformed, a record has two, or only some have right labels.
        """
        labels = results_by_id(results, self.id_key, self.value_key, "record")
        self._write(results, labels, f"{self.result_prefix}{epoch}")
        known = [kfg.U_TARGET_IDS in result for result in results]
        if not any(known):
            logger.info("there are no labels to compare with: results are only written")
            return {}
        if not all(known):
            raise UserError(
                f"{known.count(False)} of {len(known)} results have no {kfg.U_TARGET_IDS}; score "
                "a split whose labels are all known"
            )
        metrics = self._score(results)
        # A reader that has closed the pipe, as `| head` does, must not end a training.
        with contextlib.suppress(BrokenPipeError):
            for name, value in metrics.items():
                print(f"{name}: {value}" if isinstance(value, int) else f"{name}: {value:.4f}")
        return metrics

    def _score(self, results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        targets = [int(result[kfg.U_TARGET_IDS]) for result in results]
        right = [
            target >= 0 and int(result[self.value_key]) == target
            for result, target in zip(results, targets, strict=True)
        ]
        self.correct = {
            canonical_id(result[self.id_key]): good
            for result, good in zip(results, right, strict=True)
        }
        metrics: dict[str, Any] = {"accuracy": share(right)}
        metrics.update(by_split(results, right))
        statements: dict[str, list[bool]] = defaultdict(list)
        for result, good in zip(results, right, strict=True):
            if result.get(kfg.STATEMENT_IDS):
                statements[result[kfg.STATEMENT_IDS]].append(good)
        if statements:
            metrics["consistency"] = share(map(all, statements.values()))
        frequent = Counter(target for target in targets if target >= 0).most_common(1)
        metrics["majority"] = frequent[0][1] / len(targets) if frequent else 0.0
        if unknown := sum(target < 0 for target in targets):
            metrics["unknown"] = unknown
        return metrics

    def _write(
        self, results: Sequence[Mapping[str, Any]], labels: Mapping[str, Any], stem: str
    ) -> None:
        lines = []
        for result, label in zip(results, labels.values(), strict=True):
            line = {self.id_key: result[self.id_key], self.value_key: self._label(result, label)}
            if self._names:
                line["answer"] = self._names[line[self.value_key]]
            lines.append(line)
        write_results(self.output_dir, f"{stem}.json", lines)

    def _label(self, result: Mapping[str, Any], label: Any) -> int:
        try:
            number = int(label)
        except (TypeError, ValueError):
            raise UserError(
                f"record {result[self.id_key]} has the label {label!r}; a label is a number"
            ) from None
        if self._names and not 0 <= number < len(self._names):
            raise UserError(
                f"record {result[self.id_key]} has label {number}, but DATALOADER.ANSWERS lists "
                f"{len(self._names)}; the list belongs to another model"
            )
        return number


def share(values: Iterable[bool]) -> float:
    """The share of True; 0 of nothing."""
    values = list(values)
    return sum(values) / len(values) if values else 0.0


def by_split(results: Sequence[Mapping[str, Any]], right: Sequence[bool]) -> dict[str, float]:
    """``accuracy_<split>`` of the splits that results name.

    Args:
        results: With the name of their split under SPLITS, '' for none.
        right: Whether each is right.
    """
    splits: dict[str, list[bool]] = defaultdict(list)
    for result, good in zip(results, right, strict=True):
        if result.get(kfg.SPLITS):
            splits[result[kfg.SPLITS]].append(good)
    return {f"accuracy_{name}": share(values) for name, values in splits.items()}


def _label_names(cfg: Any) -> list[str]:
    if not cfg.DATALOADER.ANSWERS:
        return []
    from xmodaler.evaluation.vqa_truth import read_label_answers

    return read_label_answers(cfg)
