"""The evaluator of boxes that phrases describe."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xmodaler.config import kfg
from xmodaler.evaluation.accuracy import by_split, share
from xmodaler.evaluation.build import EVALUATION_REGISTRY
from xmodaler.evaluation.result_files import canonical_id, results_by_id, write_results
from xmodaler.functional.func_regions import (
    Box,
    box_in_pixels,
    overlap_of_boxes,
    overlap_of_predictions,
)
from xmodaler.utils.errors import UserError

__all__ = ["GroundingEvaler"]

logger = logging.getLogger(__name__)
ENOUGH = 0.5
"""The overlap from which a box is right."""


@EVALUATION_REGISTRY.register()
class GroundingEvaler:
    """The share of phrases whose box has an intersection over union of 0.5 with a right box.

    RefCOCO, RefCOCO+ and RefCOCOg count it for each split apart: val, testA (people), testB (other
    things) (Yu et al., ECCV 2016). Where people drew several boxes, one of them is enough.

    Args:
        cfg: The root config; reads ``INFERENCE.{ID_KEY, VALUE}`` and ``INFERENCE.PIXEL_IOU``:
            measure as published accuracies of RefCOCO do, where intersections are counted in
            whole pixels and areas are not, so that scores compare with theirs.
        annfile: Not read: results bring the right boxes.
        output_dir: Boxes are written to ``<output_dir>/results/{epoch}.json`` in pixels of the
            picture, ``[{ID_KEY, "box": [x, y, width, height], "iou"}]``; None or '' writes none.

    Attributes:
        truth_keys: What results must bring along from the data, where these have it.
        result_prefix: Put before the epoch in the names of result files, to tell splits apart.
        overlaps: After :meth:`eval`, by id the greatest overlap with a right box.
    """

    truth_keys: tuple[str, ...] = (kfg.PICTURE_SIZES, kfg.TRUE_BOXES, kfg.SPLITS)

    def __init__(self, cfg: Any, annfile: str = "", output_dir: str | None = None) -> None:
        self.id_key = cfg.INFERENCE.ID_KEY
        self.value_key = cfg.INFERENCE.VALUE
        self.overlap = overlap_of_predictions if cfg.INFERENCE.PIXEL_IOU else overlap_of_boxes
        self.output_dir = output_dir or ""
        self.result_prefix = ""
        self.overlaps: dict[str, float] = {}

    def eval(self, results: Sequence[Mapping[str, Any]], epoch: int = -1) -> dict[str, float]:
        """Writes the boxes, counts the right ones and prints the shares.

        Args:
            results: One ``{ID_KEY: id, VALUE: box}`` per phrase; a box is centre x, centre y,
                width and height as shares of the picture. ``PICTURE_SIZES`` is the width and
                height of the picture in pixels, ``TRUE_BOXES`` (K, 4) the right boxes x, y, width,
                height in pixels, and ``SPLITS`` optionally the name of the split.
            epoch: Names the result file; -1 outside of training.

        Returns:
            ``accuracy``; ``accuracy_<split>`` where records name splits; ``iou``, the mean overlap
            with the nearest right box. Without right boxes: empty.

        Raises:
            UserError: A result is malformed, a phrase has two, or only some have right boxes.
        """
        values = results_by_id(results, self.id_key, self.value_key, "phrase")
        boxes = [
            self._box(result, value) for result, value in zip(results, values.values(), strict=True)
        ]
        known = [kfg.TRUE_BOXES in result for result in results]
        has_truth = any(known)
        if has_truth and not all(known):
            raise UserError(
                f"{known.count(False)} of {len(known)} results have no {kfg.TRUE_BOXES}; score a "
                "split whose boxes are all known"
            )
        overlaps = [
            self._best(box, result) for box, result in zip(boxes, results, strict=True) if has_truth
        ]
        self.overlaps = {
            canonical_id(result[self.id_key]): overlap
            for result, overlap in zip(results, overlaps, strict=False)
        }
        self._write(results, boxes, overlaps, epoch)
        if not has_truth:
            logger.info("there are no boxes to compare with: results are only written")
            return {}
        right = [overlap >= ENOUGH for overlap in overlaps]
        metrics = {"accuracy": share(right), **by_split(results, right)}
        metrics["iou"] = sum(overlaps) / len(overlaps)
        # A reader that has closed the pipe, as `| head` does, must not end a training.
        with contextlib.suppress(BrokenPipeError):
            for name, value in metrics.items():
                print(f"{name}: {value:.4f}")
        return metrics

    def _box(self, result: Mapping[str, Any], value: Any) -> Box:
        shares = np.asarray(value, dtype=np.float64)
        size = np.asarray(result.get(kfg.PICTURE_SIZES, ()), dtype=np.float64)
        if shares.shape != (4,) or size.shape != (2,):
            raise UserError(
                f"phrase {result[self.id_key]} has the box {value!r} and the {kfg.PICTURE_SIZES} "
                f"{size.tolist()}; four shares of a picture and its width and height are needed"
            )
        return box_in_pixels(shares.tolist(), *size.tolist())

    def _best(self, box: Box, result: Mapping[str, Any]) -> float:
        truth = np.asarray(result[kfg.TRUE_BOXES], dtype=np.float64).reshape(-1, 4)
        return max((self.overlap(box, right) for right in truth.tolist()), default=0.0)

    def _write(
        self,
        results: Sequence[Mapping[str, Any]],
        boxes: Sequence[Box],
        overlaps: Sequence[float],
        epoch: int,
    ) -> None:
        lines = [
            {self.id_key: result[self.id_key], "box": [round(side, 2) for side in box]}
            for result, box in zip(results, boxes, strict=True)
        ]
        for line, overlap in zip(lines, overlaps, strict=False):
            line["iou"] = round(overlap, 4)
        write_results(self.output_dir, f"{self.result_prefix}{epoch}.json", lines)
