"""Mappers of still images."""

from .caption_dataset import CaptionDataset
from .mscoco import MSCoCoDataset, MSCoCoSampleByTxtDataset
from .mscoco_cosnet import MSCoCoCOSNetDataset
from .mscoco_feat import MSCoCoFeatDataset
from .mscoco_raw import MSCoCoRawDataset

__all__ = [
    "CaptionDataset",
    "MSCoCoCOSNetDataset",
    "MSCoCoDataset",
    "MSCoCoFeatDataset",
    "MSCoCoRawDataset",
    "MSCoCoSampleByTxtDataset",
]
