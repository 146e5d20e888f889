"""Mappers of videos."""

from .msrvtt import MSRVTTDataset
from .msvd import MSVDDataset

__all__ = ["MSRVTTDataset", "MSVDDataset"]
