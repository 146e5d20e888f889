"""The report of a run, made from its output folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from xmodaler.evaluation.java_metrics import JAVA_METRICS, why_unavailable
from xmodaler.evaluation.report import Curve, read_curves, write_report
from xmodaler.inference.answerer import Answerer
from xmodaler.inference.base import LoadedPredictor
from xmodaler.inference.captioner import Captioner
from xmodaler.inference.chooser import Chooser
from xmodaler.inference.comparer import Comparer
from xmodaler.inference.grounder import Grounder
from xmodaler.inference.loading import load
from xmodaler.inference.report_boxes import comparison_samples, grounding_samples
from xmodaler.inference.report_captions import caption_samples
from xmodaler.inference.report_understanding import (
    answer_samples,
    choice_samples,
    ranking_samples,
)
from xmodaler.inference.retriever import Retriever
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["make_report"]

_CAPTIONS = (
    "Bleu_1",
    "Bleu_2",
    "Bleu_3",
    "Bleu_4",
    "METEOR",
    "ROUGE_L",
    "CIDEr",
    "CIDEr-D",
    "SPICE",
)
_ANSWERS = ("accuracy", *(f"answer_type/{kind}" for kind in ("yes/no", "number", "other")))
_SHARES = ("iou", "consistency", "majority")
_CHOICES = ("Q -> A", "QA -> R", "Q -> AR")
_RECALLS = tuple(
    f"{way}/{name}" for way in ("t2i", "i2t") for name in ("R@1", "R@5", "R@10", "medr")
)
_METRICS = (*_CAPTIONS, *_ANSWERS, *_SHARES, *_CHOICES, *_RECALLS)
_CURVE_METRICS = (
    *("CIDEr", "Bleu_4", "METEOR", "ROUGE_L", "SPICE"),
    *("accuracy", *_CHOICES, "t2i/R@1", "i2t/R@1"),
)


def make_report(
    output_dir: str | os.PathLike[str],
    num_samples: int = 24,
    *,
    scores: Sequence[Mapping[str, Any]] | None = None,
    notes: str | Sequence[str] = (),
    title: str | None = None,
    image_folder: str = "",
    device: str = "auto",
    attention: bool = False,
) -> str:
    """Writes ``report.html`` into the output folder of a training.

    Shows what the model makes of samples spread evenly over the test split (the validation split
    where there is no test split), the score table and the curves of the training. Captions come
    with their references, their CIDEr against the document frequencies of the whole split and, for
    attention models on pictures, a map per word; questions with the answers that the model and
    people gave; searches with what was found.

    Args:
        output_dir: The folder; config, vocabulary, weights and ``metrics.json`` are read from it.
        num_samples: Pictures, questions or searches to show.
        scores: Rows of the score table; by default the last scores in ``metrics.json``.
        notes: Further sentences under the heading.
        title: Heading; by default the name of the folder.
        image_folder: Where the pictures to show are; by default DATALOADER.IMAGE_FOLDER, which is
            empty for models on features.
        device: Where the model runs.
        attention: Show where the words of phrases, statements and questions looked; of captions
            it is always shown.

    Returns:
        The path of the report.

    Raises:
        UserError: The folder holds no usable run, or the data of its config are not there.
    """
    output_dir = expand_path(os.fspath(output_dir))
    loaded = load(output_dir, device=device)
    cfg = loaded.cfg
    stage = "test" if cfg.DATASETS.TEST else "val"
    if not cfg.DATASETS[stage.upper()]:
        raise UserError(
            f"the config of '{output_dir}' has neither DATASETS.TEST nor DATASETS.VAL; a report "
            "needs pictures"
        )
    curves = read_curves(os.path.join(output_dir, "metrics.json"))
    if scores is None:
        scores = _last_scores(curves)
    folder = image_folder or cfg.DATALOADER.IMAGE_FOLDER or cfg.DATALOADER.VIDEO_FOLDER
    folder = expand_path(folder) if folder else ""
    samples, noun = _samples(loaded, stage, num_samples, folder, attention)
    path = os.path.join(output_dir, "report.html")
    write_report(
        path,
        title=title or os.path.basename(os.path.abspath(output_dir)),
        scores=scores,
        curves=_chosen_curves(curves),
        samples=samples,
        samples_title=f"{len(samples)} {stage} {noun}",
        notes=[_about(loaded), *([notes] if isinstance(notes, str) else notes), *_absent(scores)],
    )
    return path


def _samples(
    loaded: LoadedPredictor, stage: str, count: int, folder: str, attention: bool
) -> tuple[list[dict[str, Any]], str]:
    """The samples to show, and what they are."""
    if isinstance(loaded, Captioner):
        return caption_samples(loaded, stage, count, folder), "pictures"
    if isinstance(loaded, Answerer):
        return answer_samples(loaded, stage, count, folder, attention), "questions"
    if isinstance(loaded, Grounder):
        return grounding_samples(loaded, stage, count, attention), "phrases"
    if isinstance(loaded, Comparer):
        return comparison_samples(loaded, stage, count, attention), "statements"
    if isinstance(loaded, Chooser):
        return choice_samples(loaded, stage, count, folder), "questions"
    if isinstance(loaded, Retriever):
        return ranking_samples(loaded, stage, count, folder), "searches"
    return [], "samples"


def _about(loaded: LoadedPredictor) -> str:
    text = f"{loaded.cfg.MODEL.META_ARCHITECTURE}, weights {os.path.basename(loaded.weights)}"
    beams = f", beam size {loaded.cfg.DECODE_STRATEGY.BEAM_SIZE}" if loaded.generates else ""
    return f"{text}{beams}."


def _last_scores(curves: Mapping[str, Curve]) -> list[dict[str, Any]]:
    """One row per evaluated split, from the last value of each of its metrics."""
    rows: dict[str, dict[str, Any]] = {}
    for stage in ("test", "test_ema", "val", "val_ema"):
        for metric in _METRICS:
            points = curves.get(f"{stage}/{metric}")
            if points:
                rows.setdefault(stage, {"split": stage})[metric] = points[-1][1]
    return list(rows.values())


def _absent(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why the Java metrics are not in the table."""
    shown = {column for row in scores for column in row}
    if not shown & set(_CAPTIONS):
        return []
    missing = [(name, why_unavailable(name)) for name in JAVA_METRICS if name not in shown]
    return [f"{name} is not in the table: {reason}." for name, reason in missing if reason]


def _chosen_curves(curves: Mapping[str, Curve]) -> dict[str, Curve]:
    """Losses, learning rate and main metrics over time, without timings and repetitions."""
    losses = sorted((name for name in curves if "loss" in name.lower()), key=_total_first)
    if losses[:1] == ["total_loss"] and len(losses) == 2:
        losses.pop()  # a single loss is the total
    rates = [name for name in curves if name == "lr"]
    metrics = [
        name
        for metric in _CURVE_METRICS
        for name, points in curves.items()
        if name.endswith(f"/{metric}") and len(points) > 1
    ]
    return {name: curves[name] for name in [*losses, *rates, *metrics]}


def _total_first(name: str) -> tuple[bool, str]:
    return name != "total_loss", name
