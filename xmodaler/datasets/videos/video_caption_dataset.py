"""A mapper for people's own videos (or features of their frames) and captions."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable
from xmodaler.utils.frame_sampling import FrameSampling, Timeline

from ..build import DATASETS_REGISTRY
from ..features import region_features
from ..images.caption_dataset import CaptionDataset
from .clips import ClipReader
from .frames import frame_sample
from .msvd import refuse_both


@DATASETS_REGISTRY.register()
class VideoCaptionDataset(CaptionDataset):
    """Videos, or features of their frames, with captions as people wrote them.

    Annotations are COCO captions JSON, whose ``images`` are the videos, or JSON lines
    ``{"video": ..., "captions": [...]}``. Samples hold the keys of :class:`CaptionDataset`, with
    IMAGES (frames, 3, size, size) uint8 from ``video_folder`` or ATT_FEATS (frames, D) from
    ``feats_folder``. A clip of more than ``max_feat_num`` frames is sampled: see
    :class:`xmodaler.utils.frame_sampling.FrameSampling`. Features, which have no clock, are taken
    to be at equal distances, so that the rule ``fps`` only thins them out uniformly.

    Args:
        video_folder: Where the annotated file names begin, or ''. A name may be that of a video,
            an animated picture or a folder of frames.
        frame_sampling: ``"uniform"``, ``"segment"`` (random in training) or ``"fps"``.
        frame_rate: Frames a second, for ``"fps"``.
        stage, anno_file, split, image_size, image_augment, vocab_file, feats_folder: As in
            :class:`CaptionDataset`; all frames of a clip are cropped alike.
        seq_per_img, max_feat_num, max_seq_len, relation_file, gv_feat_file: As there.
        attribute_file: As there.
    """

    noun: ClassVar[str] = "video"
    things: ClassVar[str] = "videos"
    folder_key: ClassVar[str] = "VIDEO_FOLDER"

    @configurable
    def __init__(
        self,
        stage: str,
        anno_file: str,
        split: str = "",
        video_folder: str = "",
        image_size: int = 224,
        image_augment: bool = False,
        frame_sampling: str = "uniform",
        frame_rate: float = 1.0,
        vocab_file: str = "",
        feats_folder: str = "",
        seq_per_img: int = 5,
        max_feat_num: int = -1,
        max_seq_len: int = 20,
        relation_file: str = "",
        gv_feat_file: str = "",
        attribute_file: str = "",
    ) -> None:
        super().__init__(
            stage=stage,
            anno_file=anno_file,
            split=split,
            image_folder=video_folder,
            image_size=image_size,
            vocab_file=vocab_file,
            feats_folder=feats_folder,
            seq_per_img=seq_per_img,
            max_feat_num=max_feat_num,
            max_seq_len=max_seq_len,
            relation_file=relation_file,
            gv_feat_file=gv_feat_file,
            attribute_file=attribute_file,
        )
        training = stage == "train"
        self.with_times = False
        if video_folder:
            sampling = FrameSampling(frame_sampling, max_feat_num, frame_rate, jitter=training)
            self.read_picture = ClipReader(image_size, sampling, image_augment and training)
        thinned = "uniform" if frame_sampling == "fps" else frame_sampling
        self.sample_features = (
            FrameSampling(thinned, max_feat_num, jitter=training) if max_feat_num > 0 else None
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER, INFERENCE.VOCAB and MODEL.MAX_SEQ_LEN."""
        loader = cfg.DATALOADER
        arguments = super().from_config(cfg, stage)
        del arguments["image_folder"]
        return {
            **arguments,
            "video_folder": loader.VIDEO_FOLDER,
            "frame_sampling": loader.FRAME_SAMPLING,
            "frame_rate": loader.FRAME_RATE,
        }

    def expect(self, cfg: CfgNode) -> None:
        """Also whether the model wants to know when frames are."""
        super().expect(cfg)
        self.with_times = cfg.MODEL.VISUAL_EMBED.LOCATION_SIZE > 0

    def _prepare(self, cfg: CfgNode) -> None:
        refuse_both(cfg)
        super()._prepare(cfg)

    def features(self, arrays: Mapping[str, np.ndarray], name: str) -> dict[str, Any]:
        """ATT_FEATS, one row per chosen frame."""
        frames = region_features(arrays, name, -1, self.feats_width)
        if self.sample_features is not None:
            frames = frames[self.sample_features(Timeline.of_count(len(frames)))]
        return frame_sample(frames, self.with_times)
