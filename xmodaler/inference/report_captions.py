"""Captioned pictures for the report of a run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xmodaler.config import CfgNode, kfg
from xmodaler.datasets.annotations import read_captions
from xmodaler.datasets.bad_samples import SampleError
from xmodaler.datasets.build import build_dataset_mapper
from xmodaler.evaluation.result_files import canonical_id
from xmodaler.inference.captioner import Captioner
from xmodaler.scorer import CiderD
from xmodaler.tokenization import PTBTokenizer
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.file_kinds import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from xmodaler.utils.frame_sampling import FrameSampling

__all__ = ["caption_samples", "shown_file", "spread"]

_BATCH = 16


def caption_samples(
    captioner: Captioner, stage: str, count: int, folder: str
) -> list[dict[str, Any]]:
    """Pictures spread evenly over a split, captioned and scored; see :func:`make_report`."""
    cfg = captioner.cfg
    mapper = build_dataset_mapper(cfg, cfg.DATASETS[stage.upper()], stage)
    records = [record for record in mapper.load_data(cfg) if "error" not in record]
    references, files = _references(cfg, stage)
    chosen = []
    for record in spread(records, count):
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
                "image": shown_file(path),
                "references": references.get(key, []),
                "caption": caption.text,
                "scores": {"CIDEr": cider(caption.text, references.get(key, []))},
                "words": caption.words,
                "attention": caption.attention if has_map else None,
            }
        )
    return samples


def shown_file(path: str) -> Any:
    """What stands for a file in the report: itself, or the frame in the middle of a clip."""
    is_video = os.path.isdir(path) or Path(path).suffix.lower() in VIDEO_SUFFIXES - PICTURE_SUFFIXES
    if not is_video:
        return path if os.path.isfile(path) else None
    from xmodaler.utils.videos import load_frames

    try:
        return next(iter(load_frames(path, FrameSampling("segment", 1))), None)
    except UserError:
        return None


def spread(records: Sequence[Any], count: int) -> list[Any]:
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
