"""Pictures themselves as the visual keys of samples, for models that read pixels."""

import os
from collections.abc import Mapping
from typing import Any

from xmodaler.config import CfgNode, kfg
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .bad_samples import SampleError
from .pictures import PictureReader
from .tar_shards import read_member
from .visual_source import VisualSource


class PictureSource(VisualSource):
    """IMAGES (3, size, size) uint8 of a picture's file, or of its place in a tar shard.

    Args:
        image_folder: Where file names begin; '' where all pictures lie in shards.
        size: Side of the square to which pictures are brought.
        augment: Crop at random.
    """

    def __init__(self, image_folder: str, size: int = 224, augment: bool = False) -> None:
        self.image_folder = expand_path(image_folder)
        self.read = PictureReader(size, augment)

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str) -> "PictureSource":
        """From DATALOADER.IMAGE_FOLDER, IMAGE_SIZE and, for training, IMAGE_AUGMENT."""
        loader = cfg.DATALOADER
        return cls(
            loader.IMAGE_FOLDER, loader.IMAGE_SIZE, loader.IMAGE_AUGMENT and stage == "train"
        )

    def check(self) -> None:
        if self.image_folder and not os.path.isdir(self.image_folder):
            raise UserError(f"DATALOADER.IMAGE_FOLDER '{self.image_folder}' is not a folder")
        self.read.prepare()

    def can_mirror(self) -> bool:
        return True

    def sample(self, record: Mapping[str, Any], *, mirror: bool = False) -> dict[str, Any]:
        picture = self._picture(record)
        return {kfg.IMAGES: picture.flip(-1) if mirror else picture}

    def _picture(self, record: Mapping[str, Any]) -> Any:
        if "shard" in record:
            return self.read.decode(read_member(dict(record)), record["where"])
        name = record.get("file_name")
        if not name:
            raise SampleError(
                f"image '{record.get('image_id', '?')}'",
                "the annotations give no file name; DATALOADER.IMAGE_LIST or IMAGE_NAME can",
            )
        return self.read(os.path.join(self.image_folder, name))
