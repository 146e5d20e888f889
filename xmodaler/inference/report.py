"""The report of a run, made from its output folder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodaler.config import CfgNode, kfg
from xmodaler.datasets.annotations import read_captions
from xmodaler.datasets.bad_samples import SampleError
from xmodaler.datasets.build import build_dataset_mapper
from xmodaler.evaluation.java_metrics import JAVA_METRICS, why_unavailable
from xmodaler.evaluation.report import Curve, read_curves, write_report
from xmodaler.evaluation.result_files import canonical_id
from xmodaler.inference.captioner import Captioner
from xmodaler.inference.loading import load
from xmodaler.scorer import CiderD
from xmodaler.tokenization import PTBTokenizer
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.file_kinds import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from xmodaler.utils.frame_sampling import FrameSampling

__all__ = ["make_report"]

_METRICS = (
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
_CURVE_METRICS = ("CIDEr", "Bleu_4", "METEOR", "ROUGE_L", "SPICE")
_BATCH = 16


def make_report(
    output_dir: str | os.PathLike[str],
    num_samples: int = 24,
    *,
    scores: Sequence[Mapping[str, Any]] | None = None,
    notes: str | Sequence[str] = (),
    title: str | None = None,
    image_folder: str = "",
    device: str = "auto",
) -> str:
    """Writes ``report.html`` into the output folder of a training.

    Captions pictures spread evenly over the test split (the validation split where there is no
    test split), each with its references, its CIDEr against the document frequencies of the whole
    split and, for attention models on pictures, a map per word; adds the score table and the
    curves of the training.

    Args:
        output_dir: The folder; config, vocabulary, weights and ``metrics.json`` are read from it.
        num_samples: Pictures to show.
        scores: Rows of the score table; by default the last scores in ``metrics.json``.
        notes: Further sentences under the heading.
        title: Heading; by default the name of the folder.
        image_folder: Where the pictures to show are; by default DATALOADER.IMAGE_FOLDER, which is
            empty for models on features.
        device: Where the model runs.

    Returns:
        The path of the report.

    Raises:
        UserError: The folder holds no usable run, or the data of its config are not there.
    """
    output_dir = expand_path(os.fspath(output_dir))
    captioner = load(output_dir, device=device)
    cfg = captioner.cfg
    stage = "test" if cfg.DATASETS.TEST else "val"
    if not cfg.DATASETS[stage.upper()]:
        raise UserError(
            f"the config of '{output_dir}' has neither DATASETS.TEST nor DATASETS.VAL; a report "
            "needs pictures to caption"
        )
    curves = read_curves(os.path.join(output_dir, "metrics.json"))
    if scores is None:
        scores = _last_scores(curves)
    own_notes = [
        f"{cfg.MODEL.META_ARCHITECTURE}, weights {os.path.basename(captioner.weights)}, "
        f"beam size {cfg.DECODE_STRATEGY.BEAM_SIZE}."
    ]
    path = os.path.join(output_dir, "report.html")
    write_report(
        path,
        title=title or os.path.basename(os.path.abspath(output_dir)),
        scores=scores,
        curves=_chosen_curves(curves),
        samples=_samples(captioner, stage, num_samples, image_folder),
        notes=[*own_notes, *([notes] if isinstance(notes, str) else notes), *_absent(scores)],
    )
    return path


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
    if not scores:
        return []
    shown = {column for row in scores for column in row}
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


def _samples(
    captioner: Captioner, stage: str, count: int, image_folder: str
) -> list[dict[str, Any]]:
    cfg = captioner.cfg
    loader = cfg.DATALOADER
    folder = expand_path(image_folder or loader.IMAGE_FOLDER or loader.VIDEO_FOLDER)
    mapper = build_dataset_mapper(cfg, cfg.DATASETS[stage.upper()], stage)
    records = [record for record in mapper.load_data(cfg) if "error" not in record]
    references, files = _references(cfg, stage)
    chosen = []
    for record in _spread(records, count):
        try:
            chosen.append(mapper(record))
        except SampleError:
            continue
    captions = []
    for start in range(0, len(chosen), _BATCH):
        captions += captioner.caption_samples(
            chosen[start : start + _BATCH],
            beam_size=cfg.DECODE_STRATEGY.BEAM_SIZE,
            return_attention=True,
        )
    cider = _Cider([references.get(canonical_id(record["image_id"]), []) for record in records])
    samples = []
    for sample, caption in zip(chosen, captions, strict=True):
        key = canonical_id(sample[kfg.IDS])
        path = os.path.join(folder, files[key]) if folder and key in files else ""
        # Only maps with a layout say something to the eye: those of regions have none.
        has_map = caption.attention is not None and caption.attention.ndim == 3
        samples.append(
            {
                "image": _shown(path),
                "references": references.get(key, []),
                "caption": caption.text,
                "scores": {"CIDEr": cider(caption.text, references.get(key, []))},
                "words": caption.words,
                "attention": caption.attention if has_map else None,
            }
        )
    return samples


def _shown(path: str) -> Any:
    """What stands for a file in the report: itself, or the frame in the middle of a clip."""
    is_video = os.path.isdir(path) or Path(path).suffix.lower() in VIDEO_SUFFIXES - PICTURE_SUFFIXES
    if not is_video:
        return path if os.path.isfile(path) else None
    from xmodaler.utils.videos import load_frames

    try:
        return next(iter(load_frames(path, FrameSampling("segment", 1))), None)
    except UserError:
        return None


def _spread(records: list[Any], count: int) -> list[Any]:
    """``count`` records at equal distances."""
    count = min(count, len(records))
    return [records[index * len(records) // count] for index in range(count)]


def _references(cfg: CfgNode, stage: str) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Reference captions and file names by id, from the files of the evaluator and the data."""
    references: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for file in (
        cfg.INFERENCE[f"{stage.upper()}_ANNFILE"],
        cfg.DATALOADER[f"{stage.upper()}_ANNFILE"],
    ):
        if not file or not os.path.isfile(expand_path(file)):
            continue
        for image in read_captions(expand_path(file))[0]:
            key = canonical_id(image.image_id)
            references.setdefault(key, image.captions)
            if image.file_name:
                names.setdefault(key, image.file_name)
    return references, names


class _Cider:
    """CIDEr of single captions with the document frequencies of a whole split."""

    def __init__(self, references: Sequence[Sequence[str]]) -> None:
        self.tokenizer = PTBTokenizer()
        flat = self.tokenizer.tokenize_document([text for texts in references for text in texts])
        words = iter(flat)
        split = [[next(words) for _ in texts] for texts in references if texts]
        self.scorer = CiderD.from_references(split) if split else None

    def __call__(self, caption: str, references: Sequence[str]) -> float | None:
        if self.scorer is None or not references:
            return None
        tokenize = self.tokenizer.tokenize
        return self.scorer.score(tokenize(caption), [tokenize(text) for text in references])
