"""Samples of pre-training on pictures, regions and texts."""

from .regions import RegionSamples, collate_regions
from .texts import CaptionTexts, MaskedTexts, draw_text

__all__ = ["CaptionTexts", "MaskedTexts", "RegionSamples", "collate_regions", "draw_text"]
