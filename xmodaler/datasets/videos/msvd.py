"""Captioning of MSVD clips from stored frame features."""

import os
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg

from ..build import DATASETS_REGISTRY
from ..captions import one_row_per_caption
from ..features import region_features
from ..images.mscoco import MSCoCoDataset


@DATASETS_REGISTRY.register()
class MSVDDataset(MSCoCoDataset):
    """Clips as frame features ``<video_id>.npy``, captions as word ids.

    Samples hold the keys of :class:`MSCoCoDataset`; a training record is one caption.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        anno_file: Encoded captions whose records have ``video_id``.
        seq_per_img: Captions per training sample.
        max_feat_num: M, most frames of a clip; all when not positive.
        max_seq_len: Greatest length of a generated caption.
        feats_folder: Folder or packed file of frame features (frames, D).
    """

    name: ClassVar[str] = "msvd"

    @configurable
    def __init__(
        self,
        stage: str,
        anno_file: str,
        seq_per_img: int,
        max_feat_num: int,
        max_seq_len: int,
        feats_folder: str,
    ) -> None:
        super().__init__(
            stage=stage,
            anno_file=anno_file,
            seq_per_img=seq_per_img,
            max_feat_num=max_feat_num,
            max_seq_len=max_seq_len,
            feats_folder=feats_folder,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL.MAX_SEQ_LEN."""
        loader = cfg.DATALOADER
        anno_file = os.path.join(loader.ANNO_FOLDER, f"{cls.name}_caption_anno_{stage}.pkl")
        return {
            "stage": stage,
            "anno_file": anno_file,
            "seq_per_img": loader.SEQ_PER_SAMPLE,
            "max_feat_num": loader.MAX_FEAT_NUM,
            "max_seq_len": cfg.MODEL.MAX_SEQ_LEN,
            "feats_folder": loader.FEATS_FOLDER,
        }

    def _preprocess_datalist(self, datalist: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return one_row_per_caption(datalist) if self.stage == "train" else datalist

    def _sample_frame(self, frames: np.ndarray) -> np.ndarray:
        """At most M frames: those at ``int(i * frames / M)``."""
        most = self.max_feat_num
        if not 0 < most < len(frames):
            return frames
        return frames[[int(i * len(frames) / most) for i in range(most)]]

    def visual(self, record: dict[str, Any]) -> dict[str, Any]:
        """ATT_FEATS, one row per frame."""
        if not self.feats_folder:
            return super().visual(record)
        video_id = record["image_id"]
        frames = region_features(
            self.store.get(video_id), f"video '{video_id}'", -1, self.feats_width
        )
        return {kfg.ATT_FEATS: self._sample_frame(frames)}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """One sample of a record.

        Raises:
            SampleError: The record is unusable.
        """
        if "video_id" in dataset_dict:
            dataset_dict = {**dataset_dict, "image_id": dataset_dict["video_id"]}
        return super().__call__(dataset_dict)
