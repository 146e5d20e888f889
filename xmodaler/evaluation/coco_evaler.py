"""The evaluator of captions: result files and the official metrics."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.evaluation.caption_metrics import ALL_METRICS, score_with_reasons
from xmodaler.evaluation.result_files import (
    canonical_id,
    results_by_id,
    unknown_ids,
    write_results,
)
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["COCOEvaler"]

logger = logging.getLogger(__name__)


@EVALUATION_REGISTRY.register()
class COCOEvaler:
    """Scores captions against the references of a COCO captions JSON or JSON lines file.

    Only the images that have a result are scored, so one file may hold the references of several
    splits.

    Args:
        cfg: The root config; reads ``INFERENCE.{ID_KEY, VALUE}``, the keys of a result, and
            ``INFERENCE.METRICS``.
        annfile: References: COCO captions JSON, or JSON lines of ``{"id", "captions"}``.
        output_dir: Results are written to ``<output_dir>/results/{epoch}.json``; None or '' writes
            none.

    Attributes:
        metrics: Names of the metrics to compute, by default all. METEOR starts a Java program of
            1 GB, which takes seconds; a run that scores often may leave it out.
        result_prefix: Put before the epoch in the names of result files, to tell splits apart.
        per_image: After :meth:`eval`, the scores of each image under its id as a string.
        unavailable: After :meth:`eval`, metrics that were not computed, with the reason.
    """

    def __init__(self, cfg: Any, annfile: str, output_dir: str | None = None) -> None:
        # Files are read on the first use, by the one process that scores.
        self.annfile = annfile = expand_path(annfile)
        self.id_key = cfg.INFERENCE.ID_KEY
        self.value_key = cfg.INFERENCE.VALUE
        self.output_dir = output_dir or ""
        self.metrics = tuple(cfg.INFERENCE.get("METRICS", ())) or ALL_METRICS
        self.result_prefix = ""
        self.per_image: dict[str, dict[str, float]] = {}
        self.unavailable: dict[str, str] = {}
        self._references: dict[str, list[str]] | None = None
        if not os.path.isfile(annfile):
            raise UserError(
                f"the reference captions '{annfile}' do not exist; INFERENCE.VAL_ANNFILE and "
                "INFERENCE.TEST_ANNFILE must name COCO captions JSON or JSON lines files"
            )

    @property
    def references(self) -> dict[str, list[str]]:
        """Reference captions per image id, in the order of the file."""
        if self._references is None:
            from xmodaler.datasets.annotations import read_captions

            images, problems = read_captions(self.annfile)
            for problem in problems[:5]:
                logger.warning("%s", problem)
            if len(problems) > 5:
                logger.warning("%s: %d more problems", self.annfile, len(problems) - 5)
            self._references = {canonical_id(image.image_id): image.captions for image in images}
        return self._references

    def eval(self, results: Sequence[Mapping[str, Any]], epoch: int = -1) -> dict[str, float]:
        """Writes the results, scores them and prints one line per metric.

        Args:
            results: One ``{ID_KEY: id, VALUE: caption}`` per image; ids are integers or strings.
            epoch: Names the result file; -1 outside of training.

        Returns:
            ``Bleu_1`` .. ``Bleu_4``, ``METEOR``, ``ROUGE_L``, ``CIDEr``, ``CIDEr-D``, ``SPICE``;
            Java metrics only where they can be computed.

        Raises:
            UserError: If a result is malformed, an id comes twice or has no references.
        """
        write_results(self.output_dir, f"{self.result_prefix}{epoch}.json", list(results))
        hypotheses = self._hypotheses(results)
        references = {key: self.references[key] for key in self.references if key in hypotheses}
        corpus, self.per_image, self.unavailable = score_with_reasons(
            references, hypotheses, self.metrics
        )
        # A reader that has closed the pipe, as `| head` does, must not end a training.
        with contextlib.suppress(BrokenPipeError):
            for name, value in corpus.items():
                print(f"{name}: {value:.3f}")
            for name, reason in self.unavailable.items():
                print(f"{name}: not computed, {reason}")
        return corpus

    def _hypotheses(self, results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        hypotheses = results_by_id(results, self.id_key, self.value_key, "image")
        if problem := unknown_ids(hypotheses, self.references, "image", self.annfile):
            raise UserError(problem)
        for key in [key for key in hypotheses if not self.references[key]]:
            logger.warning("image %s has no reference in '%s': not scored", key, self.annfile)
            del hypotheses[key]
        return hypotheses
