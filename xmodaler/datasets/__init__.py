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
    MSCoCoCOSNetDataset,
    MSCoCoDataset,
    MSCoCoFeatDataset,
    MSCoCoRawDataset,
    MSCoCoSampleByTxtDataset,
)
from .samplers import EvalSampler, ResumableBatchSampler, TrainingSampler
from .videos import MSRVTTDataset, MSVDDataset, VideoCaptionDataset

__all__ = [
    "DATASETS_REGISTRY",
    "BadSampleMonitor",
    "CaptionDataset",
    "DatasetFromList",
    "EvalSampler",
    "FeatureStore",
    "MSCoCoCOSNetDataset",
    "MSCoCoDataset",
    "MSCoCoFeatDataset",
    "MSCoCoRawDataset",
    "MSCoCoSampleByTxtDataset",
    "MSRVTTDataset",
    "MSVDDataset",
    "MapDataset",
    "ResumableBatchSampler",
    "SampleError",
    "TrainingSampler",
    "VideoCaptionDataset",
    "build_dataset_mapper",
    "build_xmodaler_train_loader",
    "build_xmodaler_valtest_loader",
    "collate",
    "open_feature_store",
]
