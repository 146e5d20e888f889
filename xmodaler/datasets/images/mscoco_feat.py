"""Inference over feature files that the config lists."""

from typing import Any

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional import dict_as_tensor
from xmodaler.utils.errors import UserError

from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..feature_store import read_arrays
from ..features import expected_width
from .mscoco_cosnet import grid_sample


def listed_records(sample_ids: list[Any], file_paths: list[str]) -> list[dict[str, Any]]:
    """Records of DATALOADER.SAMPLE_IDS and DATALOADER.FILE_PATHS taken together.

    Raises:
        UserError: The lists differ in length.
    """
    if len(sample_ids) != len(file_paths):
        raise UserError(
            f"DATALOADER.SAMPLE_IDS names {len(sample_ids)} items and DATALOADER.FILE_PATHS "
            f"{len(file_paths)}; each item needs one of both"
        )
    return [
        {"image_id": str(image_id), "path": path}
        for image_id, path in zip(sample_ids, file_paths, strict=True)
    ]


@DATASETS_REGISTRY.register()
class MSCoCoFeatDataset:
    """Feature files given one by one, for inference.

    A sample holds IDS, ATT_FEATS, G_TOKENS_TYPE, and GLOBAL_FEATS where the file has a
    ``g_feature``.

    Args:
        max_seq_len: Greatest length of a generated caption.
        max_feat_num: Most features of an image; all when not positive.
        sample_ids: Ids of the items.
        file_paths: Their ``.npz`` or ``.npy`` files.
    """

    @configurable
    def __init__(
        self, max_seq_len: int, max_feat_num: int, sample_ids: list[Any], file_paths: list[str]
    ) -> None:
        self.max_seq_len = max_seq_len
        self.max_feat_num = max_feat_num
        self.sample_ids = sample_ids
        self.file_paths = file_paths
        self.feats_width: int | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "test") -> dict[str, Any]:
        """Arguments from DATALOADER and MODEL.MAX_SEQ_LEN; every stage sees the same items."""
        return {
            "max_seq_len": cfg.MODEL.MAX_SEQ_LEN,
            "max_feat_num": cfg.DATALOADER.MAX_FEAT_NUM,
            "sample_ids": cfg.DATALOADER.SAMPLE_IDS,
            "file_paths": cfg.DATALOADER.FILE_PATHS,
        }

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """One record per listed file."""
        self.feats_width = expected_width(cfg)
        return listed_records(self.sample_ids, self.file_paths)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """One sample.

        Raises:
            SampleError: The file is missing or unusable.
        """
        name = f"image '{dataset_dict['image_id']}'"
        try:
            arrays = read_arrays(dataset_dict["path"])
        except SampleError as error:
            raise SampleError(name, str(error)) from None
        sample = {
            kfg.IDS: dataset_dict["image_id"],
            **grid_sample(arrays, name, self.max_feat_num, self.feats_width),
            kfg.G_TOKENS_TYPE: np.ones(self.max_seq_len, dtype=np.int64),
        }
        dict_as_tensor(sample)
        return sample
