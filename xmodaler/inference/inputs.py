"""Pictures, clips and features that people hand to a model, brought to samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import CfgNode, kfg
from xmodaler.functional import dict_as_tensor
from xmodaler.inference.pictures import as_picture
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.file_kinds import PICTURE_SUFFIXES, VIDEO_SUFFIXES
from xmodaler.utils.frame_sampling import Timeline, exact_frames

__all__ = ["FEATURE_SUFFIXES", "PICTURE_SUFFIXES", "Item", "SampleReader", "expand", "is_one"]

FEATURE_SUFFIXES = frozenset({".npz", ".npy"})


@dataclass(frozen=True)
class Item:
    """One thing to caption.

    Attributes:
        id: Path of a file, or the place in the sequence of what is no file.
        source: A path, PIL image, array, or mapping of feature arrays; or the error that reading
            it is to raise, so that one bad source does not keep the others from being captioned.
    """

    id: str
    source: Any

    @property
    def path(self) -> str | None:
        """The path of a file, else None."""
        return self.source if isinstance(self.source, str) else None


def expand(sources: Any, kind: str = "pictures") -> Iterator[Item]:
    """Walks through one source or many.

    Args:
        sources: A path, a folder (its pictures, videos and feature files, by name), a ``.txt``
            file with one path a line (relative to the working folder, else to the file's own), a
            PIL image, an array, a mapping of feature arrays, or an iterable of these.
        kind: What the model reads. For ``"videos"`` a folder of pictures is one clip, as is an
            array (frames, height, width, 3) or, inside an iterable, a list of pictures.

    Raises:
        UserError: A source is of no known kind.
    """
    if _is_single(sources):
        sources = [sources]
    elif not isinstance(sources, Iterable):
        raise UserError(_unknown(sources))
    for index, source in enumerate(sources):
        if isinstance(source, str | os.PathLike):
            yield from _files(os.fspath(source), kind)
        elif _is_single(source) or _is_frames(source):
            yield Item(str(getattr(source, "filename", "") or index), source)
        else:
            raise UserError(_unknown(source))


def _is_single(source: Any) -> bool:
    if isinstance(source, str | os.PathLike | np.ndarray | Mapping):
        return True
    return hasattr(source, "convert") and hasattr(source, "getbands")


def _is_frames(source: Any) -> bool:
    """Whether it is a list of pictures in memory, the frames of one clip."""
    return isinstance(source, list | tuple) and all(
        _is_single(frame) and not isinstance(frame, str | os.PathLike | Mapping) for frame in source
    )


def _unknown(source: Any) -> str:
    return (
        f"a {type(source).__name__} cannot be captioned; give paths, PIL images or numpy arrays "
        "of pictures or clips, or feature files"
    )


def _files(name: str, kind: str) -> Iterator[Item]:
    if "://" in name:
        error = f"'{name}' is an address; download the file and give its path"
        yield Item(name, UserError(error))
        return
    path = Path(expand_path(name))
    if path.is_dir() and not (kind == "videos" and _is_folder_of_frames(path)):
        found = _inside(path, kind)
        if not found:
            error = f"the folder '{name}' holds no picture, no video and no feature file"
            yield Item(name, UserError(error))
        for file in found:
            yield Item(str(file), str(file))
    elif path.suffix.lower() == ".txt" and path.is_file():
        yield from _listed(path, kind)
    else:
        yield Item(name, str(path))


def _inside(folder: Path, kind: str) -> list[Path]:
    """What a folder holds to be captioned, by name."""
    suffixes = PICTURE_SUFFIXES | FEATURE_SUFFIXES | (VIDEO_SUFFIXES if kind == "videos" else set())
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    return sorted(
        file
        for file in files
        if (file.suffix.lower() in suffixes and file.is_file())
        or (kind == "videos" and file.is_dir() and _is_folder_of_frames(file))
    )


def _is_folder_of_frames(folder: Path) -> bool:
    """Whether a folder is one clip: still pictures, and neither videos nor features."""
    from xmodaler.utils.clips import is_frame

    files = [file for file in folder.iterdir() if file.is_file()]
    suffixes = {file.suffix.lower() for file in files}
    frames = sorted(file for file in files if is_frame(file))
    others = (VIDEO_SUFFIXES | FEATURE_SUFFIXES) & suffixes
    return bool(frames) and not others and not _is_animated(frames[0])


def _is_animated(file: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(file) as picture:
            return getattr(picture, "n_frames", 1) > 1
    except (OSError, SyntaxError, ValueError):
        return False


def _listed(path: Path, kind: str) -> Iterator[Item]:
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        yield Item(str(path), UserError(f"the list '{path}' cannot be read as text: {error}"))
        return
    if not any(lines):
        error = f"the list '{path}' is empty; one path a line is needed"
        yield Item(str(path), UserError(error))
    for number, line in enumerate(lines, 1):
        if line.lower().endswith(".txt"):
            error = f"'{path}' line {number} names another list, '{line}'; give files"
            yield Item(line, UserError(error))
        elif line:
            beside = path.parent / line
            use_beside = beside.exists() and not os.path.exists(line)
            yield from _files(str(beside) if use_beside else line, kind)


class _TaskClips:
    """Reads clips for models that take a fixed number of frames.

    Args:
        size: Side of the square to which frames are brought.
        frames: How many; those of a short clip are shown again.
    """

    def __init__(self, size: int, frames: int) -> None:
        from xmodaler.datasets.pictures import PictureReader
        from xmodaler.datasets.tasks import TaskVisuals

        self._visuals = TaskVisuals("", size, frames)
        self._pictures = PictureReader(size)
        self.frames = frames

    def prepare(self) -> None:
        """Import what reading needs."""
        self._pictures.prepare()

    def sampling(self, timeline: Timeline) -> list[int]:
        """The frames of a clip that are looked at."""
        return exact_frames(len(timeline), self.frames)

    def convert(self, pictures: Iterable[Any]) -> Tensor:
        """Loaded RGB pictures as (frames, 3, size, size) uint8."""
        return torch.stack([self._pictures.convert(picture) for picture in pictures])

    def __call__(self, path: str) -> Tensor:
        """A video, an animated picture, a folder of frames, or a JSON list of them in base64."""
        return self._visuals.video(path)


class SampleReader:
    """Turns items into the samples that the model's test data consist of.

    Pictures and clips are prepared by the code that prepares those of the data set, features
    likewise.

    Args:
        cfg: The config of the run.
        kind: What the model reads: ``"pictures"``, ``"videos"`` or ``"features"``.
        generates: Whether the model writes sentences and so needs types of their words.
    """

    def __init__(self, cfg: CfgNode, kind: str, generates: bool = True) -> None:
        from xmodaler.datasets.pictures import PictureReader
        from xmodaler.datasets.videos.clips import ClipReader
        from xmodaler.inference.arrays import ArrayReader

        self.kind = kind
        self._generated = cfg.MODEL.MAX_SEQ_LEN if generates else 0
        if kind == "features":
            self._arrays = ArrayReader(cfg)
        else:
            loader = cfg.DATALOADER
            if kind != "videos":
                self._pixels = PictureReader(loader.IMAGE_SIZE)
            elif loader.TASK.VIDEO:
                self._pixels = _TaskClips(loader.IMAGE_SIZE, loader.MAX_FEAT_NUM)
            else:
                self._pixels = ClipReader.from_config(cfg)
            self._pixels.prepare()

    def __call__(self, item: Item) -> dict[str, Any]:
        """One sample: IDS, IMAGES or ATT_FEATS and what belongs to them, perhaps G_TOKENS_TYPE.

        Raises:
            UserError: The item cannot be read, or is not what this model reads.
        """
        source = item.source
        if isinstance(source, UserError):
            raise source
        sample: dict[str, Any] = {kfg.IDS: item.id}
        if self.kind == "features":
            sample.update(self._features(item))
        else:
            sample[kfg.IMAGES] = self._images(item)
        if self._generated:
            sample[kfg.G_TOKENS_TYPE] = np.ones(self._generated, dtype=np.int64)
        dict_as_tensor(sample)
        return sample

    def _images(self, item: Item) -> Any:
        source, name = item.source, _name(item)
        is_feature_file = item.path and Path(item.path).suffix.lower() in FEATURE_SUFFIXES
        if is_feature_file or isinstance(source, Mapping):
            raise UserError(f"{name} holds features, but this model reads {self.kind}")
        if item.path:
            is_video = Path(item.path).suffix.lower() in VIDEO_SUFFIXES - PICTURE_SUFFIXES
            if is_video and self.kind == "pictures":
                raise UserError(f"{name} is a video, but this model captions pictures")
            return self._pixels(item.path)
        if self.kind == "videos":
            return self._clip(source, name)
        if isinstance(source, list | tuple):
            raise UserError(f"{name} is a list of frames, but this model captions pictures")
        return self._pixels.convert(as_picture(source, name))

    def _clip(self, source: Any, name: str) -> Any:
        """A clip in memory: frames, or a single picture."""
        is_single = not isinstance(source, list | tuple) and getattr(source, "ndim", 0) != 4
        frames = [source] if is_single else list(source)
        if not frames:
            raise UserError(f"{name} has no frame")
        chosen = self._pixels.sampling(Timeline.of_count(len(frames)))
        return self._pixels.convert(as_picture(frames[k], f"frame {k} of {name}") for k in chosen)

    def _features(self, item: Item) -> dict[str, Any]:
        from xmodaler.datasets.feature_store import read_arrays

        source, name = item.source, _name(item)
        if item.path:
            if Path(item.path).suffix.lower() not in FEATURE_SUFFIXES:
                width = f" of width {self._arrays.width}" if self._arrays.width else ""
                raise UserError(
                    f"{name} is not a feature file (.npz or .npy), but this model was trained on "
                    f"features{width}, not on pictures or videos"
                )
            if not os.path.isfile(item.path):
                raise UserError(f"feature file {name} does not exist")
            arrays = {key.lower(): value for key, value in read_arrays(item.path).items()}
        elif isinstance(source, Mapping):
            arrays = {str(key).lower(): np.asarray(value) for key, value in source.items()}
        elif isinstance(source, np.ndarray):
            arrays = {"features": source}
        else:
            raise UserError(f"{name} is a picture, but this model was trained on features")
        return self._arrays(arrays, name, item.path or "")


def _name(item: Item) -> str:
    return f"'{item.id}'" if item.path else f"item {item.id}"


def is_one(source: Any, kind: str = "pictures") -> bool:
    """Whether a source is a single picture, clip or feature file rather than many.

    Args:
        source, kind: As for :func:`expand`.
    """
    if not isinstance(source, str | os.PathLike):
        return _is_single(source)
    path = Path(expand_path(os.fspath(source)))
    if path.is_dir():
        return kind == "videos" and _is_folder_of_frames(path)
    return path.suffix.lower() != ".txt"
