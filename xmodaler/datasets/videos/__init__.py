"""Mappers of videos."""

from .msrvtt import MSRVTTDataset
from .msvd import MSVDDataset
from .video_caption_dataset import VideoCaptionDataset

__all__ = ["MSRVTTDataset", "MSVDDataset", "VideoCaptionDataset"]
