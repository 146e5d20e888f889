"""From stored features of frames to the visual keys of a sample."""

from typing import Any

import numpy as np

from xmodaler.config import kfg


def frame_sample(frames: np.ndarray, with_times: bool = False) -> dict[str, Any]:
    """The visual keys of a clip.

    A model that is told where regions are (MODEL.VISUAL_EMBED.LOCATION_SIZE) is told in the same
    way when frames are: frame k of F is a box that reaches from k/F to (k+1)/F along the first
    axis, time, and from 0 to 1 along the other.

    Args:
        frames: Features (F, D) in the order of time.
        with_times: Whether to add these boxes.

    Returns:
        ATT_FEATS (F, D) and, if asked for, ATT_FEATS_LOC (F, 5) float32.
    """
    sample: dict[str, Any] = {kfg.ATT_FEATS: frames}
    if with_times:
        sample[kfg.ATT_FEATS_LOC] = frame_locations(len(frames))
    return sample


def frame_locations(count: int) -> np.ndarray:
    """The boxes in time of frames at equal distances, float32 ``(count, 5)``."""
    starts = np.arange(count, dtype=np.float32) / count
    zeros, ones = np.zeros_like(starts), np.ones_like(starts)
    return np.stack([starts, zeros, starts + 1 / count, ones, ones / count], axis=1)
