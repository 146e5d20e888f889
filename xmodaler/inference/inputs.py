"""What people hand to a captioner, brought to samples."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.config import CfgNode, kfg
from xmodaler.functional import dict_as_tensor
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.file_kinds import PICTURE_SUFFIXES

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["FEATURE_SUFFIXES", "PICTURE_SUFFIXES", "Item", "SampleReader", "expand"]

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


def expand(sources: Any) -> Iterator[Item]:
    """Walks through one source or many.

    Args:
        sources: A path, a folder (its pictures and feature files, by name), a ``.txt`` file with
            one path a line (relative to the working folder, else to the file's own), a PIL image,
            an array, a mapping of feature arrays, or an iterable of these.

    Raises:
        UserError: A source is of no known kind.
    """
    if _is_single(sources):
        sources = [sources]
    elif not isinstance(sources, Iterable):
        raise UserError(_unknown(sources))
    for index, source in enumerate(sources):
        if isinstance(source, str | os.PathLike):
            yield from _files(os.fspath(source))
        elif _is_single(source):
            yield Item(str(getattr(source, "filename", "") or index), source)
        else:
            raise UserError(_unknown(source))


def _is_single(source: Any) -> bool:
    if isinstance(source, str | os.PathLike | np.ndarray | Mapping):
        return True
    return hasattr(source, "convert") and hasattr(source, "getbands")


def _unknown(source: Any) -> str:
    return (
        f"a {type(source).__name__} cannot be captioned; give paths, PIL images or numpy arrays "
        "of pictures, or feature files"
    )


def _files(name: str) -> Iterator[Item]:
    if "://" in name:
        error = f"'{name}' is an address; download the picture and give its path"
        yield Item(name, UserError(error))
        return
    path = Path(expand_path(name))
    if path.is_dir():
        found = sorted(
            file
            for file in path.iterdir()
            if file.suffix.lower() in PICTURE_SUFFIXES | FEATURE_SUFFIXES
            and not file.name.startswith(".")
        )
        if not found:
            error = f"the folder '{name}' holds no picture and no feature file"
            yield Item(name, UserError(error))
        for file in found:
            yield Item(str(file), str(file))
    elif path.suffix.lower() == ".txt" and path.is_file():
        yield from _listed(path)
    else:
        yield Item(name, str(path))


def _listed(path: Path) -> Iterator[Item]:
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
            error = f"'{path}' line {number} names another list, '{line}'; give pictures"
            yield Item(line, UserError(error))
        elif line:
            beside = path.parent / line
            use_beside = beside.exists() and not os.path.exists(line)
            yield from _files(str(beside) if use_beside else line)


class SampleReader:
    """Turns items into the samples that the model's test data consist of.

    Pictures are prepared by the code that prepares those of the data set, features likewise.

    Args:
        cfg: The config of the run.
        reads_pictures: Whether the model starts from pixels, not from features.
    """

    def __init__(self, cfg: CfgNode, reads_pictures: bool) -> None:
        from xmodaler.datasets.features import expected_width
        from xmodaler.datasets.pictures import PictureReader

        self.reads_pictures = reads_pictures
        self._pictures = PictureReader(cfg.DATALOADER.IMAGE_SIZE)
        if reads_pictures:
            self._pictures.prepare()
        self._max_feat_num = cfg.DATALOADER.MAX_FEAT_NUM
        self._width = expected_width(cfg)
        self._is_grid = cfg.MODEL.VISUAL_EMBED.NAME == "VisualGridEmbedding"
        self._max_seq_len = cfg.MODEL.MAX_SEQ_LEN

    def __call__(self, item: Item) -> dict[str, Any]:
        """One sample: IDS, IMAGES or ATT_FEATS and what belongs to them, G_TOKENS_TYPE.

        Raises:
            UserError: The item cannot be read, or is not what this model reads.
        """
        source = item.source
        if isinstance(source, UserError):
            raise source
        sample: dict[str, Any] = {kfg.IDS: item.id}
        if self.reads_pictures:
            sample[kfg.IMAGES] = self._picture(item)
        else:
            sample.update(self._features(item, source))
        sample[kfg.G_TOKENS_TYPE] = np.ones(self._max_seq_len, dtype=np.int64)
        dict_as_tensor(sample)
        return sample

    def _picture(self, item: Item) -> Any:
        source = item.source
        is_feature_file = item.path and Path(item.path).suffix.lower() in FEATURE_SUFFIXES
        if is_feature_file or isinstance(source, Mapping):
            raise UserError(f"{_name(item)} holds features, but this model reads pictures")
        if item.path:
            return self._pictures(item.path)
        if isinstance(source, np.ndarray):
            source = _image_of_array(source, _name(item))
        return self._pictures.convert(_as_rgb(source, _name(item)))

    def _features(self, item: Item, source: Any) -> dict[str, Any]:
        from xmodaler.datasets.feature_store import read_arrays
        from xmodaler.datasets.features import visual_sample
        from xmodaler.datasets.images.mscoco_cosnet import grid_sample

        name = _name(item)
        if item.path:
            if Path(item.path).suffix.lower() not in FEATURE_SUFFIXES:
                raise UserError(
                    f"{name} is not a feature file (.npz or .npy), but this model was trained on "
                    f"features{f' of width {self._width}' if self._width else ''}, not on pictures"
                )
            if not os.path.isfile(item.path):
                raise UserError(f"feature file {name} does not exist")
            arrays = read_arrays(item.path)
        elif isinstance(source, Mapping):
            arrays = {key: np.asarray(value) for key, value in source.items()}
        elif isinstance(source, np.ndarray):
            arrays = {"features": source}
        else:
            raise UserError(f"{name} is a picture, but this model was trained on features")
        make = grid_sample if self._is_grid else visual_sample
        return make(arrays, name, self._max_feat_num, self._width)


def _name(item: Item) -> str:
    return f"'{item.id}'" if item.path else f"item {item.id}"


def _image_of_array(array: np.ndarray, name: str) -> Image.Image:
    """A picture from ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` values."""
    from PIL import Image

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not is_picture or 0 in array.shape:
        raise UserError(
            f"{name} is an array of shape {array.shape}; a picture is (height, width), "
            "(height, width, 3) or (height, width, 4)"
        )
    if array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        # The usual scales are 0..1 and 0..255; anything else is a mistake better named.
        values = array.astype(np.float64)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
            raise UserError(f"{name} has pixels that are not within 0 and 255 (or 0 and 1)")
        is_unit = np.issubdtype(array.dtype, np.floating) and values.max() <= 1
        array = np.rint(values * 255 if is_unit else values).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def _as_rgb(picture: Image.Image, name: str) -> Image.Image:
    """As the file of this picture would be read: upright, transparency on white, 16 bits to 8."""
    import io

    from PIL import ImageOps

    from xmodaler.utils.pictures import load_picture

    try:
        picture = ImageOps.exif_transpose(picture)
        if picture.mode == "RGB":
            return picture
        buffer = io.BytesIO()
        # PNG keeps the transparency of palettes, TIFF holds every other mode that matters.
        picture.save(buffer, "PNG" if picture.mode in ("1", "L", "LA", "P", "RGBA") else "TIFF")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{name} cannot be decoded: {error}") from error
    return load_picture(buffer.getvalue())
