"""A fixed list of well separated colours for drawing boxes and curves."""

import colorsys
import random

import numpy as np

__all__ = ["colormap", "random_color"]

_NUM_COLORS = 74
# Successive hues a golden section apart never come close to their predecessors.
_GOLDEN_SECTION = 0.618033988749895
_SHADES = ((0.85, 0.95), (0.55, 0.85), (0.95, 0.65), (0.40, 0.98))  # saturation, value


def colormap(rgb: bool = False, maximum: float = 255) -> np.ndarray:
    """The colours.

    Args:
        rgb: Whether the channels are RGB; BGR otherwise.
        maximum: 255 or 1, the value of a full channel.

    Returns:
        (74, 3) float32 in [0, maximum].
    """
    if maximum not in (255, 1):
        raise ValueError(f"maximum of a colormap must be 255 or 1, not {maximum}")
    colors = [
        colorsys.hsv_to_rgb((index * _GOLDEN_SECTION) % 1.0, *_SHADES[index % len(_SHADES)])
        for index in range(_NUM_COLORS)
    ]
    array = np.array(colors, dtype=np.float32) * maximum
    return array if rgb else np.ascontiguousarray(array[:, ::-1])


def random_color(rgb: bool = False, maximum: float = 255) -> np.ndarray:
    """One colour of :func:`colormap`, drawn at random.

    Args:
        rgb: Whether the channels are RGB; BGR otherwise.
        maximum: 255 or 1.

    Returns:
        (3,) float32.
    """
    return colormap(rgb, maximum)[random.randrange(_NUM_COLORS)]
