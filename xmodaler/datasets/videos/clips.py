"""Clips on disk as uint8 tensors of a few frames."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xmodaler.config import CfgNode
from xmodaler.utils.errors import MissingDependencyError, UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.file_kinds import VIDEO_SUFFIXES
from xmodaler.utils.frame_sampling import FrameSampling

from ..bad_samples import SampleError
from ..pictures import SMALLEST_CROP, PictureReader

if TYPE_CHECKING:
    from PIL import Image

# An animated picture may have the ending of a still one.
_CLIP_SUFFIXES = VIDEO_SUFFIXES | {".png", ".webp"}


class ClipReader:
    """Reads a clip as a uint8 tensor ``(frames, 3, size, size)``.

    Frames are squeezed to squares one by one, so that only the small ones are in memory. With
    ``augment`` all frames of a clip are cropped alike, at random.

    Args:
        size: Side of the square in pixels.
        sampling: Chooses the frames.
        augment: Crop at random, for training.
    """

    def __init__(self, size: int, sampling: FrameSampling, augment: bool = False) -> None:
        self.sampling = sampling
        self.augment = augment
        self._pictures = PictureReader(size)

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "test") -> "ClipReader":
        """The reader that DATALOADER describes; only training is random."""
        loader, training = cfg.DATALOADER, stage == "train"
        sampling = FrameSampling(
            loader.FRAME_SAMPLING, loader.MAX_FEAT_NUM, loader.FRAME_RATE, jitter=training
        )
        return cls(loader.IMAGE_SIZE, sampling, loader.IMAGE_AUGMENT and training)

    def prepare(self) -> None:
        """Import what reading needs, so that forked workers have it already."""
        self._pictures.prepare()

    def convert(self, frames: "Iterable[Image.Image]") -> Tensor:
        """Loaded RGB pictures, taken one at a time, as ``(frames, 3, size, size)``."""
        rows: list[Tensor] = []
        crop: tuple[float, ...] | None = None
        for frame in frames:
            if self.augment:
                crop = crop or _random_crop(frame)
                sides = frame.size * 2
                frame = frame.crop([round(c * s) for c, s in zip(crop, sides, strict=True)])
            rows.append(self._pictures.convert(frame))
        return torch.stack(rows)

    def __call__(self, path: str | os.PathLike) -> Tensor:
        """Read a video, an animated picture or a folder of frames.

        Raises:
            SampleError: It does not exist, holds no frame or cannot be decoded.
            MissingDependencyError: The library that decodes videos is not installed.
        """
        from xmodaler.utils.videos import load_frames

        try:
            return self.convert(load_frames(expand_path(path), self.sampling))
        except MissingDependencyError:
            raise
        except UserError as error:
            raise SampleError(str(error)) from None


def _random_crop(frame: "Image.Image") -> tuple[float, ...]:
    """Left, top, right and bottom of a crop as fractions of the frame."""
    from torchvision.transforms import RandomResizedCrop

    top, left, height, width = RandomResizedCrop.get_params(
        frame, scale=(SMALLEST_CROP, 1.0), ratio=(3 / 4, 4 / 3)
    )
    sides = frame.size * 2
    edges = (left, top, left + width, top + height)
    return tuple(edge / side for edge, side in zip(edges, sides, strict=True))


class ClipFolder:
    """The clips of a folder and its subfolders by id, the name without its ending.

    Args:
        folder: Holds ``<id>.<ending of a video>`` files or ``<id>/`` folders of frames.

    Raises:
        UserError: It is not a folder.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(expand_path(folder))
        if not self.folder.is_dir():
            raise UserError(f"DATALOADER.VIDEO_FOLDER '{self.folder}' is not a folder")
        self._paths: dict[str, str] = {}
        for place, folders, files in os.walk(self.folder):
            for name in sorted(folders):
                self._paths.setdefault(name, os.path.join(place, name))
            for name in sorted(files):
                stem, suffix = os.path.splitext(name)
                if suffix.lower() in _CLIP_SUFFIXES:
                    self._paths[stem] = os.path.join(place, name)

    def path(self, video_id: str) -> str:
        """Where a clip is.

        Raises:
            SampleError: There is none of that name.
        """
        if video_id not in self._paths:
            raise SampleError(f"video '{video_id}'", f"no clip of that name is in {self.folder}")
        return self._paths[video_id]
