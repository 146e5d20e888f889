"""Samples of pre-training on pictures, regions, videos and texts."""

from .line_dataset import ImageTextLines, RegionLines, build_masking
from .regions import RegionSamples, fit_rows
from .text_lines import ParallelTextLines, TextLines
from .texts import CaptionTexts, MaskedTexts, draw_text
from .video_lines import VideoLines

__all__ = [
    "CaptionTexts",
    "ImageTextLines",
    "MaskedTexts",
    "ParallelTextLines",
    "RegionLines",
    "RegionSamples",
    "TextLines",
    "VideoLines",
    "build_masking",
    "draw_text",
    "fit_rows",
]
