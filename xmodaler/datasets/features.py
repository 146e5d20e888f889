"""From the arrays stored for one image to the visual keys of a sample."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from xmodaler.config import CfgNode, kfg
from xmodaler.functional import boxes_to_locfeats

from .bad_samples import SampleError
from .side_inputs import Regions

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
    kept = max_feat_num - 1 if max_feat_num > 0 else -1
    if kept == 0:
        raise SampleError(record, "MAX_FEAT_NUM 1 leaves no room for a region beside the mean one")
    features = region_features(arrays, record, kept, width)
    count = len(features)
    boxes = np.asarray(arrays["boxes"], dtype=np.float32)[:count]
    if boxes.shape != (count, 4) or not np.isfinite(boxes).all():
        raise SampleError(record, f"boxes have shape {boxes.shape}; finite ({count}, 4) is needed")
    sample = {
        kfg.ATT_FEATS: np.concatenate([features.mean(axis=0, keepdims=True), features]),
        kfg.ATT_FEATS_LOC: _locations(boxes, arrays, record),
    }
    if "cls_prob" in arrays:
        sample[kfg.V_TARGET] = np.asarray(arrays["cls_prob"], dtype=np.float32)[:count]
    return sample


def kept_regions(arrays: Mapping[str, np.ndarray], sample: Mapping[str, Any]) -> Regions | None:
    """Which of the stored regions a sample made of them has; None when nothing was stored."""
    if "features" not in arrays:
        return None
    mean_in_front = "boxes" in arrays
    kept = len(sample[kfg.ATT_FEATS]) - mean_in_front
    return Regions(len(np.asarray(arrays["features"])), kept, mean_in_front)


def _locations(boxes: np.ndarray, arrays: Mapping[str, np.ndarray], record: str) -> np.ndarray:
    try:
        width = float(np.asarray(arrays["image_w"]).reshape(-1)[0])
        height = float(np.asarray(arrays["image_h"]).reshape(-1)[0])
    except (KeyError, IndexError):
        raise SampleError(record, "it has boxes but not both of image_w and image_h") from None
    if not (width > 0 and height > 0):
        raise SampleError(record, f"its picture size {width:g} x {height:g} is not positive")
    whole = np.array([[0, 0, 1, 1, 1]], dtype=np.float32)
    return np.concatenate([whole, boxes_to_locfeats(boxes, width, height)])
