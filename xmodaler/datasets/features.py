"""From the arrays stored for one image to the visual keys of a sample."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from xmodaler.config import CfgNode, kfg
from xmodaler.functional import boxes_to_locfeats

from .bad_samples import SampleError
from .side_inputs import Regions

WHOLE_PICTURE = np.array([[0, 0, 1, 1, 1]], dtype=np.float32)
"""The location that stands for the whole picture."""

# Embeddings of this package whose input width is MODEL.VISUAL_EMBED.IN_DIM; one of a user's own
# may read another key, so nothing is expected of its features.
_SIZED_EMBEDDINGS = (
    "VisualBaseEmbedding",
    "VisualGridEmbedding",
    "TDConvEDVisualBaseEmbedding",
    "MeshedMemoryVisualEmbedding",
)


def expected_width(cfg: CfgNode) -> int | None:
    """The width D that the model takes as input, or None when the config does not say."""
    embedding = cfg.MODEL.VISUAL_EMBED
    return int(embedding.IN_DIM) if embedding.NAME in _SIZED_EMBEDDINGS else None


def region_features(
    arrays: Mapping[str, np.ndarray], record: str, max_feat_num: int, width: int | None = None
) -> np.ndarray:
    """The first regions of an image, checked.

    Args:
        arrays: What a feature store gives; ``features`` is (n, D).
        record: The record's name in messages.
        max_feat_num: Regions to keep; all when not positive.
        width: D that the model expects, or None.

    Returns:
        float32 ``(min(n, max_feat_num), D)``.

    Raises:
        SampleError: No features, another shape or width, or values that are not finite.
    """
    if "features" not in arrays:
        held = ", ".join(sorted(arrays))
        raise SampleError(record, f"its arrays are {held}, but none is named 'features'")
    features = np.asarray(arrays["features"])
    if features.ndim != 2 or not len(features):
        raise SampleError(
            record, f"features have shape {features.shape}; (regions >= 1, width) is needed"
        )
    if width is not None and features.shape[1] != width:
        raise SampleError(
            record,
            f"features have width {features.shape[1]}, but MODEL.VISUAL_EMBED.IN_DIM is {width}",
        )
    if not np.issubdtype(features.dtype, np.number):
        raise SampleError(record, f"features are of type {features.dtype}, not numbers")
    features = features[: max_feat_num if max_feat_num > 0 else None].astype(np.float32)
    if not np.isfinite(features).all():
        raise SampleError(record, "features contain NaN or infinity")
    return features


def visual_sample(
    arrays: Mapping[str, np.ndarray], record: str, max_feat_num: int, width: int | None = None
) -> dict[str, Any]:
    """The visual keys of a sample.

    With boxes, ``max_feat_num - 1`` regions are kept and their mean is put in front of them, at
    the location (0, 0, 1, 1, 1) that stands for the whole picture; V_TARGET holds the class
    probabilities of the kept regions (not of the mean).

    Args:
        arrays: ``features`` (n, D) and optionally ``boxes`` (n, 4; x1, y1, x2, y2 in pixels) with
            ``image_w``, ``image_h`` and ``cls_prob`` (n, C).
        record: The record's name in messages.
        max_feat_num: N at most; all regions when not positive.
        width: D that the model expects, or None.

    Returns:
        ATT_FEATS (N, D); with boxes also ATT_FEATS_LOC (N, 5) and, with probabilities, V_TARGET
        (N - 1, C); all float32.

    Raises:
        SampleError: The arrays do not fit this description.
    """
    if "boxes" not in arrays:
        return {kfg.ATT_FEATS: region_features(arrays, record, max_feat_num, width)}
    regions = read_regions(arrays, record, regions_kept(max_feat_num, record), width)
    sample = regions.sample(mean_in_front=True)
    if regions.cls_prob is not None:
        sample[kfg.V_TARGET] = regions.cls_prob
    return sample


def regions_kept(max_feat_num: int, record: str) -> int:
    """How many regions of an image are kept: one place is the mean's; -1 keeps all.

    The place is left free also where no mean is wanted, as models were released that way.

    Raises:
        SampleError: No place is left for a region.
    """
    if max_feat_num == 1:
        raise SampleError(record, "MAX_FEAT_NUM 1 leaves no room for a region beside the mean one")
    return max_feat_num - 1 if max_feat_num > 0 else -1


@dataclass(frozen=True)
class RegionSet:
    """The regions of one image.

    Attributes:
        features: (n, D) float32.
        locations: (n, 5) float32 (see :func:`xmodaler.functional.boxes_to_locfeats`), or None.
        boxes: (n, 4) float32: x1, y1, x2, y2 in pixels, or None.
        cls_prob: (n, C) float32 class probabilities, or None.
        whole: (D,) float32 stored features of the whole picture, or None.
    """

    features: np.ndarray
    locations: np.ndarray | None = None
    boxes: np.ndarray | None = None
    cls_prob: np.ndarray | None = None
    whole: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.features)

    def sample(self, mean_in_front: bool, mean: np.ndarray | None = None) -> dict[str, Any]:
        """ATT_FEATS and, with boxes, ATT_FEATS_LOC.

        Args:
            mean_in_front: Put a row for the whole picture, at (0, 0, 1, 1, 1), before the others.
            mean: (D,) features of that row; by default those stored of the whole picture, else the
                mean of all regions.
        """
        features, locations = self.features, self.locations
        if mean_in_front:
            mean = self.whole if mean is None else mean
            row = features.mean(axis=0) if mean is None else mean
            features = np.concatenate([row[None].astype(np.float32), features])
            if locations is not None:
                locations = np.concatenate([WHOLE_PICTURE, locations])
        if locations is None:
            return {kfg.ATT_FEATS: features}
        return {kfg.ATT_FEATS: features, kfg.ATT_FEATS_LOC: locations}


def read_regions(
    arrays: Mapping[str, np.ndarray],
    record: str,
    most: int,
    width: int | None = None,
    check_boxes: bool = False,
) -> RegionSet:
    """The first regions of an image with all that is stored of them, checked.

    Args:
        arrays: ``features`` (n, D) and optionally ``boxes`` (n, 4; x1, y1, x2, y2 in pixels) with
            ``image_w``, ``image_h`` and ``cls_prob`` (n, C).
        record: The record's name in messages.
        most: Regions to keep; all when not positive.
        width: D that the model expects, or None.
        check_boxes: Whether to refuse boxes without area or outside the picture.

    Raises:
        SampleError: The arrays do not fit this description.
    """
    features = region_features(arrays, record, most, width)
    count = len(features)
    cls_prob = None
    if "cls_prob" in arrays:
        cls_prob = np.asarray(arrays["cls_prob"], dtype=np.float32)[:count]
        if cls_prob.ndim != 2 or len(cls_prob) != count or not np.isfinite(cls_prob).all():
            raise SampleError(
                record, f"cls_prob has shape {cls_prob.shape}; finite ({count}, classes) is needed"
            )
    if "boxes" not in arrays:
        return RegionSet(features, cls_prob=cls_prob)
    boxes = np.asarray(arrays["boxes"], dtype=np.float32)[:count]
    if boxes.shape != (count, 4) or not np.isfinite(boxes).all():
        raise SampleError(record, f"boxes have shape {boxes.shape}; finite ({count}, 4) is needed")
    image_w, image_h = _picture_size(arrays, record)
    if check_boxes:
        _check_boxes(boxes, image_w, image_h, record)
    return RegionSet(features, boxes_to_locfeats(boxes, image_w, image_h), boxes, cls_prob)


def read_grid(
    arrays: Mapping[str, np.ndarray], record: str, grid: tuple[int, int], width: int | None = None
) -> RegionSet:
    """Features of the cells of a grid, row by row from the top left, with their locations.

    Args:
        arrays: ``features`` (n, D): n is the number of cells, or one more where the first is that
            of the whole picture.
        record: The record's name in messages.
        grid: Rows and columns.
        width: D that the model expects, or None.

    Raises:
        SampleError: The features do not fit the grid.
    """
    features = region_features(arrays, record, -1, width)
    rows, columns = grid
    extra = len(features) - rows * columns
    if extra not in (0, 1):
        raise SampleError(
            record,
            f"{len(features)} features, but DATALOADER.FEATS_GRID {rows} x {columns} needs "
            f"{rows * columns}, or one more with that of the whole picture first",
        )
    whole = features[0] if extra else None
    return RegionSet(features[extra:], grid_locations(rows, columns), whole=whole)


def grid_locations(rows: int, columns: int) -> np.ndarray:
    """Boxes of the cells of a grid, as ATT_FEATS_LOC has them.

    Returns:
        float32 (rows * columns, 5): x1, y1, x2, y2 and area as fractions of the picture.
    """
    top, left = (part.reshape(-1).astype(np.float32) for part in np.indices((rows, columns)))
    area = np.full_like(top, 1 / (rows * columns))
    edges = [left / columns, top / rows, (left + 1) / columns, (top + 1) / rows, area]
    return np.stack(edges, axis=1)


def kept_regions(arrays: Mapping[str, np.ndarray], sample: Mapping[str, Any]) -> Regions | None:
    """Which of the stored regions a sample made of them has; None when nothing was stored."""
    if "features" not in arrays:
        return None
    mean_in_front = "boxes" in arrays
    kept = len(sample[kfg.ATT_FEATS]) - mean_in_front
    return Regions(len(np.asarray(arrays["features"])), kept, mean_in_front)


def _picture_size(arrays: Mapping[str, np.ndarray], record: str) -> tuple[float, float]:
    try:
        width = float(np.asarray(arrays["image_w"]).reshape(-1)[0])
        height = float(np.asarray(arrays["image_h"]).reshape(-1)[0])
    except (KeyError, IndexError):
        raise SampleError(record, "it has boxes but not both of image_w and image_h") from None
    if not (width > 0 and height > 0):
        raise SampleError(record, f"its picture size {width:g} x {height:g} is not positive")
    return width, height


def _check_boxes(boxes: np.ndarray, width: float, height: float, record: str) -> None:
    def refuse(index: int, reason: str) -> SampleError:
        corners = ", ".join(f"{value:g}" for value in boxes[index])
        return SampleError(record, f"box {index} ({corners}) {reason}")

    flat = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    if flat.any():
        raise refuse(int(flat.argmax()), "has no area; x1 < x2 and y1 < y2 in pixels is needed")
    # Detectors that count pixels put an edge one pixel beyond the last.
    outside = (boxes < -1).any(axis=1) | (boxes[:, 2] > width + 1) | (boxes[:, 3] > height + 1)
    if outside.any():
        reason = f"reaches outside its picture of {width:g} x {height:g} pixels"
        raise refuse(int(outside.argmax()), reason)
