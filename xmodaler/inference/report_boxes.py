"""Boxes of phrases, and statements about two pictures, for the report of a run."""

from __future__ import annotations

from typing import Any

import numpy as np

from xmodaler.config import CfgNode
from xmodaler.datasets.bad_samples import SampleError
from xmodaler.datasets.build import DATASETS_REGISTRY, build_dataset_mapper
from xmodaler.datasets.tasks import JsonGroundingDataset, JsonReasoningDataset, JsonRecords
from xmodaler.functional.func_regions import overlap_of_boxes
from xmodaler.inference.comparer import Comparer
from xmodaler.inference.drawing import FOUND, RIGHT, draw_boxes, side_by_side
from xmodaler.inference.grounder import Grounder
from xmodaler.inference.report_captions import spread
from xmodaler.utils.errors import UserError

__all__ = ["comparison_samples", "grounding_samples"]

Sample = dict[str, Any]


def grounding_samples(
    grounder: Grounder, stage: str, count: int, attention: bool = False
) -> list[Sample]:
    """Phrases spread evenly over a split, with the boxes of people (green) and of the model (red).

    Args:
        grounder: The model.
        stage: ``"test"`` or ``"val"``.
        count: Phrases to show.
        attention: Show where the words looked.
    """
    samples = []
    mapper = _mapper(grounder.cfg, stage, JsonGroundingDataset)
    for record in _records(mapper, grounder.cfg, count):
        phrase = record["texts"][0]
        try:
            picture = mapper.source.load(record["visual"])
            found = grounder.ground(picture, phrase, return_attention=attention)
            boxes = mapper.boxes_in(record, picture.size)
        except (UserError, SampleError):
            continue
        drawn = draw_boxes(draw_boxes(picture, boxes, RIGHT), [found.box], FOUND)
        overlap = max(overlap_of_boxes(found.box, box) for box in boxes)
        sample = {"image": drawn, "caption": phrase, "scores": {"iou": overlap}}
        if found.attention is not None:
            sample |= {"words": list(found.words), "attention": found.attention}
        samples.append(sample)
    return samples


def comparison_samples(
    comparer: Comparer, stage: str, count: int, attention: bool = False
) -> list[Sample]:
    """Statements spread evenly over a split, with both pictures and what the model thinks.

    Args:
        comparer: The model.
        stage: ``"test"`` or ``"val"``.
        count: Statements to show.
        attention: Show where the words looked.
    """
    samples = []
    mapper = _mapper(comparer.cfg, stage, JsonReasoningDataset)
    for record in _records(mapper, comparer.cfg, count):
        statement = record["texts"][0]
        try:
            pictures = [mapper.source.load(visual) for visual in record["visual"]]
            found = comparer.compare(*pictures, statement, return_attention=attention)
        except (UserError, SampleError):
            continue
        label = record.get("label")
        shares = {"true": found.probability, "false": 1 - found.probability}
        sample = {
            "question": statement,
            "caption": str(found),
            "bars": [(name, share, label == (name == "true")) for name, share in shares.items()],
        }
        first, second = pictures
        if found.attention is None:
            sample["image"] = side_by_side(first, second)
        else:  # over two equal halves
            sample["image"] = side_by_side(first, second.resize(first.size), gap=0)
            maps = np.concatenate(found.attention, axis=2)
            sample |= {"words": list(found.words), "attention": maps}
        samples.append(sample)
    return samples


def _mapper(cfg: CfgNode, stage: str, kind: type[JsonRecords]) -> JsonRecords | None:
    """The mapper of a split, or None where a class of the user's own reads it."""
    name = cfg.DATASETS[stage.upper()]
    dataset = DATASETS_REGISTRY.get(name)
    if not (isinstance(dataset, type) and issubclass(dataset, kind)):
        return None
    return build_dataset_mapper(cfg, name, stage)


def _records(mapper: JsonRecords | None, cfg: CfgNode, count: int) -> list[dict[str, Any]]:
    """Usable records spread over the split."""
    if mapper is None:
        return []
    mapper.prepare(cfg)
    records = [record for record in mapper.load_raw_data(cfg) if "error" not in record]
    return spread(records, count)
