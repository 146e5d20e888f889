"""Mappers from raw records to samples, collation, loaders and feature stores."""

from .bad_samples import BadSampleMonitor, SampleError
from .build import (
    DATASETS_REGISTRY,
    build_dataset_mapper,
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
)
from .collate import collate
from .common import DatasetFromList, MapDataset
from .feature_store import FeatureStore, open_feature_store
from .images import (
    CaptionDataset,
    ConceptualCaptionsDataset,
    ConceptualCaptionsDatasetForSingleStream,
    Flickr30kDataset,
    Flickr30kDatasetForSingleStream,
    Flickr30kDatasetForSingleStreamVal,
    MSCoCoBertDataset,
    MSCoCoCOSNetDataset,
    MSCoCoDataset,
    MSCoCoFeatDataset,
    MSCoCoRawDataset,
    MSCoCoSampleByTxtDataset,
    VCRDataset,
    VQADataset,
)
from .mixed_loader import MixedLoader, build_mixed_loader
from .pretrain import (
    ImageTextLines,
    ParallelTextLines,
    RegionLines,
    TextLines,
    VideoLines,
)
from .samplers import EvalSampler, ResumableBatchSampler, TrainingSampler
from .tasks import (
    JsonCaptionDataset,
    JsonEntailmentDataset,
    JsonGroundingDataset,
    JsonReasoningDataset,
    JsonRecords,
    JsonRetrievalDataset,
    JsonVideoQADataset,
    JsonVQADataset,
)
from .videos import MSRVTTDataset, MSVDDataset, VideoCaptionDataset

__all__ = [
    "DATASETS_REGISTRY",
    "BadSampleMonitor",
    "CaptionDataset",
    "ConceptualCaptionsDataset",
    "ConceptualCaptionsDatasetForSingleStream",
    "DatasetFromList",
    "EvalSampler",
    "FeatureStore",
    "Flickr30kDataset",
    "Flickr30kDatasetForSingleStream",
    "Flickr30kDatasetForSingleStreamVal",
    "ImageTextLines",
    "JsonCaptionDataset",
    "JsonEntailmentDataset",
    "JsonGroundingDataset",
    "JsonReasoningDataset",
    "JsonRecords",
    "JsonRetrievalDataset",
    "JsonVQADataset",
    "JsonVideoQADataset",
    "MSCoCoBertDataset",
    "MSCoCoCOSNetDataset",
    "MSCoCoDataset",
    "MSCoCoFeatDataset",
    "MSCoCoRawDataset",
    "MSCoCoSampleByTxtDataset",
    "MSRVTTDataset",
    "MSVDDataset",
    "MapDataset",
    "MixedLoader",
    "ParallelTextLines",
    "RegionLines",
    "ResumableBatchSampler",
    "SampleError",
    "TextLines",
    "TrainingSampler",
    "VCRDataset",
    "VQADataset",
    "VideoCaptionDataset",
    "VideoLines",
    "build_dataset_mapper",
    "build_mixed_loader",
    "build_xmodaler_train_loader",
    "build_xmodaler_valtest_loader",
    "collate",
    "open_feature_store",
]
