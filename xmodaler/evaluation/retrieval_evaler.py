"""The evaluator of retrieval between pictures and texts by their vectors."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.evaluation.result_files import write_results
from xmodaler.evaluation.retrieval import blockwise_ranks, metrics_of_ranks

__all__ = ["RetrievalEvaler"]


@EVALUATION_REGISTRY.register()
class RetrievalEvaler:
    """Recalls and ranks in both directions, for any number of candidates.

    A picture may have several texts, of which the best one counts. Among equal scores the pool's
    order decides.

    Args:
        cfg: The root config, which is not read.
        annfile: Not read: the data set brings the truth.
        output_dir: Metrics are written to ``<output_dir>/results/{epoch}.json``; None or '' writes
            none.

    Attributes:
        result_prefix: Put before the epoch in the names of result files, to tell splits apart.
        text_ranks: After :meth:`eval`, the rank (from 0) of each text's picture; None for several
            parts of the data.
        image_ranks: After :meth:`eval`, the rank (from 0) of each picture's best text.
    """

    def __init__(self, cfg: Any = None, annfile: str = "", output_dir: str | None = None) -> None:
        del cfg, annfile
        self.output_dir = output_dir or ""
        self.result_prefix = ""
        self.text_ranks = self.image_ranks = None

    def eval(self, vfeats: Any, tfeats: Any, labels: Any, epoch: int = -1) -> dict[str, float]:
        """Ranks, writes the metrics and prints the recalls.

        Args:
            vfeats: Vectors of the pictures ``(I, P)``.
            tfeats: Vectors of the texts ``(T, P)``.
            labels: The picture of each text: indices ``(T,)``, or a matrix ``(T, I)`` that is not 0
                where they belong together.
            epoch: Names the result file; -1 outside of training.

        Returns:
            As :func:`~xmodaler.evaluation.retrieval.metrics_of_ranks`, in percent.

        Raises:
            UserError: Shapes do not fit, or a vector is not finite.
        """
        ranks = blockwise_ranks(vfeats, tfeats, labels)
        return self.eval_ranks({"": {"ranks": ranks}}, epoch)

    def eval_ranks(self, ranks: Mapping[str, Mapping[str, Any]], epoch: int = -1) -> dict[str, Any]:
        """Writes the metrics of ranks and prints the recalls.

        Args:
            ranks: By name of the part of the data, such as a language: ``ranks``, those of texts
                and of pictures, and maybe ``vectors``, the same before candidates were scored
                again.
            epoch: Names the result file; -1 outside of training.

        Returns:
            As :func:`~xmodaler.evaluation.retrieval.metrics_of_ranks`: of several parts the means,
            and those of each as ``<part>/<name>``. ``vectors/r_mean`` is the mean recall of
            vectors.
        """
        parts = {name: _metrics(part) for name, part in ranks.items()}
        first = next(iter(ranks.values()))["ranks"]
        self.text_ranks, self.image_ranks = first if len(ranks) == 1 else (None, None)
        metrics = {
            name: float(np.mean([part[name] for part in parts.values()]))
            for name in next(iter(parts.values()))
        }
        if len(parts) > 1:
            for part, found in parts.items():
                metrics.update((f"{part}/{name}", value) for name, value in found.items())
        write_results(self.output_dir, f"{self.result_prefix}{epoch}.json", metrics)
        # A reader that has closed the pipe, as `| head` does, must not end a training.
        with contextlib.suppress(BrokenPipeError):
            for name in (key for key in metrics if "/" in key):
                print(f"{name}: {metrics[name]:.2f}")
        return metrics


def _metrics(part: Mapping[str, Any]) -> dict[str, float]:
    metrics = metrics_of_ranks(*part["ranks"])
    if "vectors" in part:
        metrics["vectors/r_mean"] = metrics_of_ranks(*part["vectors"])["r_mean"]
    return metrics
