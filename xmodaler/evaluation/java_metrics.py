"""METEOR and SPICE through pycocoevalcap, where Java and their files are there."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["JAVA_METRICS", "java_metric", "why_unavailable"]

#: Name of the metric -> (module of pycocoevalcap, class, files that it runs).
JAVA_METRICS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "METEOR": (
        "pycocoevalcap.meteor.meteor",
        "Meteor",
        ("meteor/meteor-1.5.jar", "meteor/data/paraphrase-en.gz"),
    ),
    "SPICE": (
        "pycocoevalcap.spice.spice",
        "Spice",
        # Its package downloads the models when they are missing, which a metric must not do.
        (
            "spice/spice-1.0.jar",
            "spice/lib/stanford-corenlp-3.6.0.jar",
            "spice/lib/stanford-corenlp-3.6.0-models.jar",
        ),
    ),
}


def why_unavailable(name: str) -> str | None:
    """The reason, in a few words, why a metric cannot be computed here; None if it can.

    Args:
        name: ``"METEOR"`` or ``"SPICE"``.
    """
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        return "pycocoevalcap is not installed (pip install pycocoevalcap)"
    if shutil.which("java") is None:
        return "Java is not on the PATH"
    folder = Path(next(iter(spec.submodule_search_locations)))
    missing = [file for file in JAVA_METRICS[name][2] if not (folder / file).is_file()]
    if missing:
        return f"pycocoevalcap lacks {missing[0]}"
    return None


def java_metric(
    name: str, hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float, list[float]]:
    """Runs a metric of pycocoevalcap on tokenized sentences (tokens joined by spaces).

    Args:
        name: ``"METEOR"`` or ``"SPICE"``, for which :func:`why_unavailable` gives None.
        hypotheses: One sentence per image.
        references: Per image at least one sentence.

    Returns:
        The corpus score, which is not the mean for METEOR, and one score per image.

    Raises:
        RuntimeError: The Java program failed.
    """
    module, class_name, _ = JAVA_METRICS[name]
    truth = {index: list(sentences) for index, sentences in enumerate(references)}
    results = {index: [sentence] for index, sentence in enumerate(hypotheses)}
    try:
        scorer = getattr(importlib.import_module(module), class_name)()
        corpus, per_image = scorer.compute_score(truth, results)
    # Whatever goes wrong in the foreign process (memory, a broken pipe, unparsable output) costs
    # this one number, not the evaluation.
    except Exception as error:
        raise RuntimeError(f"its Java program failed ({type(error).__name__}: {error})") from error
    return float(corpus), [_image_score(score) for score in per_image]


def _image_score(score: Any) -> float:
    return float(score["All"]["f"] if isinstance(score, dict) else score)
