"""Inference over pictures that the config lists."""

from typing import Any

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional import dict_as_tensor

from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..pictures import PictureReader
from .mscoco_feat import listed_records


@DATASETS_REGISTRY.register()
class MSCoCoRawDataset:
    """Picture files given one by one, for inference by a model that begins at pixels.

    A sample holds IDS, IMAGES (3, size, size) uint8 and G_TOKENS_TYPE; the model's visual
    embedding turns the pixels into features.

    Args:
        max_seq_len: Greatest length of a generated caption.
        max_feat_num: Not used; pictures have no stored features.
        sample_ids: Ids of the items.
        file_paths: Their picture files.
        image_size: Side of the square to which pictures are brought.
    """

    @configurable
    def __init__(
        self,
        max_seq_len: int,
        max_feat_num: int,
        sample_ids: list[Any],
        file_paths: list[str],
        image_size: int = 224,
    ) -> None:
        self.max_seq_len = max_seq_len
        self.max_feat_num = max_feat_num
        self.sample_ids = sample_ids
        self.file_paths = file_paths
        self.read_picture = PictureReader(image_size)

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "test") -> dict[str, Any]:
        """Arguments from DATALOADER and MODEL.MAX_SEQ_LEN; every stage sees the same items."""
        return {
            "max_seq_len": cfg.MODEL.MAX_SEQ_LEN,
            "max_feat_num": cfg.DATALOADER.MAX_FEAT_NUM,
            "sample_ids": cfg.DATALOADER.SAMPLE_IDS,
            "file_paths": cfg.DATALOADER.FILE_PATHS,
            "image_size": cfg.DATALOADER.IMAGE_SIZE,
        }

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """One record per listed file."""
        self.read_picture.prepare()
        return listed_records(self.sample_ids, self.file_paths)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """One sample.

        Raises:
            SampleError: The picture is missing or cannot be decoded.
        """
        try:
            picture = self.read_picture(dataset_dict["path"])
        except SampleError as error:
            raise SampleError(f"image '{dataset_dict['image_id']}'", str(error)) from None
        sample = {
            kfg.IDS: dataset_dict["image_id"],
            kfg.IMAGES: picture,
            kfg.G_TOKENS_TYPE: np.ones(self.max_seq_len, dtype=np.int64),
        }
        dict_as_tensor(sample)
        return sample
