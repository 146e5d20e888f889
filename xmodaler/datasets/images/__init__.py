"""Mappers of still images."""

from .caption_dataset import CaptionDataset
from .conceptual_captions import (
    ConceptualCaptionsDataset,
    ConceptualCaptionsDatasetForSingleStream,
)
from .flickr30k import Flickr30kDataset
from .flickr30k_single_stream import (
    Flickr30kDatasetForSingleStream,
    Flickr30kDatasetForSingleStreamVal,
)
from .mscoco import MSCoCoDataset, MSCoCoSampleByTxtDataset
from .mscoco_bert import MSCoCoBertDataset
from .mscoco_cosnet import MSCoCoCOSNetDataset
from .mscoco_feat import MSCoCoFeatDataset
from .mscoco_raw import MSCoCoRawDataset
from .vcr import VCRDataset
from .vqa import VQADataset

__all__ = [
    "CaptionDataset",
    "ConceptualCaptionsDataset",
    "ConceptualCaptionsDatasetForSingleStream",
    "Flickr30kDataset",
    "Flickr30kDatasetForSingleStream",
    "Flickr30kDatasetForSingleStreamVal",
    "MSCoCoBertDataset",
    "MSCoCoCOSNetDataset",
    "MSCoCoDataset",
    "MSCoCoFeatDataset",
    "MSCoCoRawDataset",
    "MSCoCoSampleByTxtDataset",
    "VCRDataset",
    "VQADataset",
]
