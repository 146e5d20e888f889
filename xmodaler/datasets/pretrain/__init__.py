"""Samples of pre-training on pictures, regions and texts."""

from .line_dataset import ImageTextLines, RegionLines
from .regions import RegionSamples, fit_rows
from .texts import CaptionTexts, MaskedTexts, draw_text

__all__ = [
    "CaptionTexts",
    "ImageTextLines",
    "MaskedTexts",
    "RegionLines",
    "RegionSamples",
    "draw_text",
    "fit_rows",
]
