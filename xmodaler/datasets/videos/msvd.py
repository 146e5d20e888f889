"""Captioning of MSVD clips from stored frame features."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..build import DATASETS_REGISTRY
from ..captions import one_row_per_caption
from ..features import region_features
from ..images.mscoco import MSCoCoDataset
from .clips import ClipFolder, ClipReader
from .frames import frame_sample


@DATASETS_REGISTRY.register()
class MSVDDataset(MSCoCoDataset):
    """Clips as frame features ``<video_id>.npy`` (or ``.npz``), captions as word ids.

    Samples hold the keys of :class:`MSCoCoDataset`; a training record is one caption. With
    MODEL.VISUAL_EMBED.LOCATION_SIZE, ATT_FEATS_LOC tells when frames are. With
    DATALOADER.VIDEO_FOLDER in place of FEATS_FOLDER, samples hold IMAGES (frames, 3, size, size)
    of the clips themselves, found there by their ids.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        anno_file: Encoded captions whose records have ``video_id``.
        seq_per_img: Captions per training sample.
        max_feat_num: M, most frames of a clip; all when not positive.
        max_seq_len: Greatest length of a generated caption.
        feats_folder: Folder or packed file of frame features (frames, D).
    """

    name: ClassVar[str] = "msvd"
    noun: ClassVar[str] = "video"

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
        # Known once load_data has seen the config, as the other expectations of the model.
        self.with_times = False
        self.clips: ClipFolder | None = None
        self.read_clip: ClipReader | None = None

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

    def expect(self, cfg: CfgNode) -> None:
        """Also whether the model wants to know when frames are."""
        super().expect(cfg)
        self.with_times = cfg.MODEL.VISUAL_EMBED.LOCATION_SIZE > 0

    def _prepare(self, cfg: CfgNode) -> None:
        super()._prepare(cfg)
        if cfg.DATALOADER.VIDEO_FOLDER:
            refuse_both(cfg)
            self.clips = ClipFolder(cfg.DATALOADER.VIDEO_FOLDER)
            self.read_clip = ClipReader.from_config(cfg, self.stage)
            self.read_clip.prepare()

    def features(self, arrays: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
        """ATT_FEATS, one row per chosen frame."""
        frames = region_features(arrays, name, -1, self.feats_width)
        return frame_sample(self._sample_frame(frames), self.with_times)

    def visual(self, record: dict[str, Any]) -> dict[str, Any]:
        """ATT_FEATS of stored features, or IMAGES of the clip."""
        if self.clips is None or self.read_clip is None:
            return super().visual(record)
        return {kfg.IMAGES: self.read_clip(self.clips.path(record["image_id"]))}

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """One sample of a record.

        Raises:
            SampleError: The record is unusable.
        """
        if "video_id" in dataset_dict:
            dataset_dict = {**dataset_dict, "image_id": str(dataset_dict["video_id"])}
        return super().__call__(dataset_dict)


def refuse_both(cfg: CfgNode) -> None:
    """A model reads features of frames or the frames themselves.

    Raises:
        UserError: The config names both.
    """
    if cfg.DATALOADER.FEATS_FOLDER and cfg.DATALOADER.VIDEO_FOLDER:
        raise UserError(
            "DATALOADER.FEATS_FOLDER and DATALOADER.VIDEO_FOLDER are both set; keep the first for "
            "a model on features of frames, the second for one that begins at the videos"
        )
