"""Pictures and videos of tasks, as models of pixels read them."""

import base64
import os
import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import CfgNode, kfg
from xmodaler.utils.errors import MissingDependencyError, UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.frame_sampling import Timeline, exact_frames

from ..annotations import read_json
from ..augmentation import PictureAugment, RandAugment
from ..bad_samples import SampleError
from ..common import isolated_rng
from ..line_shards import read_line
from ..pictures import PictureReader
from ..videos.clips import ClipFolder
from ..visual_source import VisualSource

__all__ = ["TaskVisuals"]


class TaskVisuals(VisualSource):
    """IMAGES (3, size, size), or (F, 3, size, size) of videos, uint8.

    A record has them under ``visual``: a path below the folder, base64 of a file, a list of either
    (frames), or ``{"line": place, "key": field}`` of a line that holds one of these. A video is a
    file, a folder of frames, or a JSON file with a list of frames in base64; it may be named
    without its ending.

    Args:
        folder: Where paths begin.
        size: Side of the square.
        frames: F, the same for all videos; 0 for pictures.
        in_line: Whether records hold base64 and no paths.
        augment: What makes training pictures; None brings them to the size alone. All frames of a
            video are changed alike.
    """

    def __init__(
        self,
        folder: str,
        size: int = 224,
        frames: int = 0,
        in_line: bool = False,
        augment: PictureAugment | None = None,
    ) -> None:
        self.folder = expand_path(folder)
        self.size = size
        self.frames = frames
        self.in_line = in_line
        self.augment = augment
        self._reader = PictureReader(size)
        self._clips: ClipFolder | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str) -> "TaskVisuals":
        """From DATALOADER.{IMAGE_FOLDER, VIDEO_FOLDER, IMAGE_SIZE, MAX_FEAT_NUM, TASK}.

        Raises:
            UserError: There are videos, but the number of frames is not given.
        """
        loader, node = cfg.DATALOADER, cfg.DATALOADER.TASK
        if node.VIDEO and loader.MAX_FEAT_NUM < 1:
            raise UserError(
                f"DATALOADER.MAX_FEAT_NUM is {loader.MAX_FEAT_NUM}; it is the number of frames "
                "of a video"
            )
        folder = loader.VIDEO_FOLDER if node.VIDEO and loader.VIDEO_FOLDER else loader.IMAGE_FOLDER
        changes = None
        if stage == "train" and node.AUGMENT:
            changes = PictureAugment(loader.IMAGE_SIZE, node.SMALLEST_CROP, RandAugment())
        frames = loader.MAX_FEAT_NUM if node.VIDEO else 0
        return cls(folder, loader.IMAGE_SIZE, frames, node.IMAGE_IN_LINE, changes)

    def check(self) -> None:
        if self.folder and not os.path.isdir(self.folder):
            setting = "DATALOADER.IMAGE_FOLDER" if not self.frames else "the folder of videos"
            raise UserError(f"{setting} '{self.folder}' is not a folder")
        self._reader.prepare()

    def can_mirror(self) -> bool:
        return True

    def sample(self, record: Mapping[str, Any], *, mirror: bool = True) -> dict[str, Any]:
        """IMAGES of a record; ``mirror`` allows that training ones are mirrored."""
        visual = record["visual"]
        image = self.video(visual, mirror) if self.frames else self.picture(visual, mirror)
        return {kfg.IMAGES: image}

    def picture(self, visual: Any, may_mirror: bool = True) -> Tensor:
        """(3, size, size) uint8 of a picture, changed by chance where that is asked for.

        Raises:
            SampleError: It cannot be read.
        """
        side = self.size if self.augment is None else 2 * self.size
        return self._made(self.load(visual, side), may_mirror)

    def load(self, visual: Any, min_side: int | None = None) -> Any:
        """A loaded RGB picture, of the size of its file.

        Args:
            visual: As in a record.
            min_side: JPEGs may be decoded smaller, see ``load_picture``.

        Raises:
            SampleError: It cannot be read.
        """
        # Imported late: Pillow is needed only where pictures are read.
        from xmodaler.utils.pictures import load_picture

        visual = _content(visual)
        try:
            if not isinstance(visual, str) or not visual:
                raise UserError(f"{visual!r} stands where a picture is due")
            if not self.in_line:
                return load_picture(os.path.join(self.folder, visual), min_side=min_side)
            return load_picture(base64.b64decode(visual, validate=True), min_side=min_side)
        except (UserError, ValueError) as error:
            raise SampleError(str(error)) from None

    def video(self, visual: Any, may_mirror: bool = True) -> Tensor:
        """(F, 3, size, size) uint8 of a video; a short one shows frames again.

        Raises:
            SampleError: It cannot be read.
            MissingDependencyError: The library that decodes videos is not installed.
        """
        visual = _content(visual)
        if isinstance(visual, list):
            frames = self._listed(visual, self.in_line)
        elif not isinstance(visual, str) or not visual:
            raise SampleError(f"{visual!r} stands where a video is due")
        else:
            path = self._path_of(visual)
            is_list = path.endswith(".json")
            frames = self._listed(_read_frames(path), True) if is_list else self._decoded(path)
        seed = random.getrandbits(62)
        made = []
        for frame in frames:
            with isolated_rng(seed):
                made.append(self._made(frame, may_mirror))
        return torch.stack(made)

    def _made(self, picture: Any, may_mirror: bool) -> Tensor:
        if self.augment is not None:
            return self.augment(picture, may_mirror)
        return self._reader.convert(picture)

    def _places(self, count: int) -> list[int]:
        return exact_frames(count, self.frames, None if self.augment is None else np.random)

    def _listed(self, frames: Sequence[Any], in_line: bool) -> list[Any]:
        if not frames:
            raise SampleError("the video has no frame")
        inner = self
        if in_line != self.in_line:
            inner = TaskVisuals(self.folder, self.size, in_line=in_line)
        places = self._places(len(frames))
        loaded = {place: inner.load(frames[place], 2 * self.size) for place in set(places)}
        return [loaded[place] for place in places]

    def _decoded(self, path: str) -> list[Any]:
        from xmodaler.utils.videos import load_frames

        places: list[int] = []

        def choose(timeline: Timeline) -> list[int]:
            places[:] = self._places(len(timeline))
            return sorted(set(places))

        try:
            pictures = list(load_frames(path, choose))
        except MissingDependencyError:
            raise
        except UserError as error:
            raise SampleError(str(error)) from None
        loaded = dict(zip(sorted(set(places)), pictures, strict=False))
        if len(loaded) < len(set(places)):
            raise SampleError(f"video '{path}' ends before the frames that it announces")
        return [loaded[place] for place in places]

    def _path_of(self, name: str) -> str:
        path = os.path.join(self.folder, name)
        for choice in (path, f"{path}.json"):
            if os.path.exists(choice):
                return choice
        if os.path.splitext(name)[1]:
            raise SampleError(f"video '{path}' does not exist")
        if self._clips is None:
            self._clips = ClipFolder(self.folder or ".")
        return self._clips.path(name)


def _content(visual: Any) -> Any:
    """What a record holds, or what the line holds to which it points."""
    if isinstance(visual, Mapping):
        line = read_line(visual["line"])
        if visual["key"] not in line:
            raise SampleError(f"it has no '{visual['key']}'")
        return line[visual["key"]]
    return visual


def _read_frames(path: str) -> list[Any]:
    try:
        frames = read_json(path)
    except UserError as error:
        raise SampleError(str(error)) from None
    if not isinstance(frames, list):
        raise SampleError(f"'{path}' holds a {type(frames).__name__}, not a list of frames")
    return frames
