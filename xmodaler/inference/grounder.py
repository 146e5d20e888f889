"""A loaded model that finds in a picture what a phrase describes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from xmodaler.config import CfgNode, kfg
from xmodaler.functional.func_regions import Box, box_in_pixels
from xmodaler.inference.base import LoadedPredictor, OnError, check_counts
from xmodaler.inference.drawing import draw_boxes
from xmodaler.inference.fusion_attention import record_attention
from xmodaler.inference.inputs import Item, SampleReader, is_one
from xmodaler.inference.pictures import as_picture
from xmodaler.inference.texts import TextReader, text_list
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.file_kinds import PICTURE_SUFFIXES, VIDEO_SUFFIXES

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Grounder", "Grounding"]

_PICTURE = "picture"


@dataclass(frozen=True)
class Grounding:
    """Where something is in a picture.

    The model names one box and says nothing of how sure it is; it names one also where the picture
    holds nothing of the kind.

    Attributes:
        id: Path of the picture, or its place among the inputs.
        phrase: What was searched.
        box: x, y, width and height in pixels of the picture.
        size: Width and height of the picture in pixels.
        words: The word pieces of the phrase as the model read it, where attention was asked for.
        attention: ``(words, rows, columns)``, where each of them looked, where it was asked for.
    """

    id: str
    phrase: str
    box: Box
    size: tuple[int, int]
    words: tuple[str, ...] = ()
    attention: np.ndarray | None = field(default=None, compare=False)
    _source: Any = field(default=None, repr=False, compare=False)

    @property
    def corners(self) -> tuple[float, float, float, float]:
        """Left, top, right and bottom, in pixels."""
        x, y, width, height = self.box
        return x, y, x + width, y + height

    def draw(self) -> Image.Image:
        """The picture with the box and the phrase."""
        return draw_boxes(_loaded(self._source, self.id), [self.box], label=self.phrase)

    def save(self, path: str | os.PathLike[str]) -> str:
        """Writes :meth:`draw` to a file whose ending names its format.

        Returns:
            The path.

        Raises:
            UserError: It cannot be written.
        """
        path = expand_path(os.fspath(path))
        try:
            self.draw().save(path)
        except (OSError, ValueError) as error:
            raise UserError(f"the picture '{path}' cannot be written: {error}") from None
        return path

    def as_dict(self) -> dict[str, Any]:
        """What goes into a line of JSON."""
        return {
            "image": self.id,
            "phrase": self.phrase,
            "box": [round(side, 2) for side in self.box],
            "width": self.size[0],
            "height": self.size[1],
        }


class _WholePictures:
    """Reads pictures at their own size, which boxes are told in, and then as the model does."""

    def __init__(self, read: SampleReader) -> None:
        self._read = read

    def __call__(self, item: Item) -> dict[str, Any]:
        picture = _loaded(item.source, item.id)
        sample = self._read(Item(item.id, picture))
        kept = item.source if item.path else picture
        return {**sample, kfg.PICTURE_SIZES: torch.tensor(picture.size), _PICTURE: kept}


class Grounder(LoadedPredictor):
    """Finds what phrases describe.

    Args:
        model, cfg, precision, weights: As for :class:`LoadedPredictor`.
    """

    ability = "finds what phrases describe: .ground(picture, phrase)"

    def __init__(
        self, model: torch.nn.Module, cfg: CfgNode, precision: str = "fp32", weights: str = ""
    ) -> None:
        super().__init__(model, cfg, precision, weights)
        self._read = _WholePictures(self._read)
        self._read_texts = TextReader(cfg)

    def ground(
        self,
        picture: Any,
        phrase: str | Sequence[str],
        batch_size: int = 32,
        return_attention: bool = False,
        on_error: OnError = "raise",
    ) -> Grounding | list[Grounding]:
        """Finds what a phrase describes in a picture, or many.

        Args:
            picture: One or many, of the kinds that :meth:`Captioner.caption` takes.
            phrase: One, which is searched in every picture; or several: in one picture, or one in
                each of as many pictures.
            batch_size: Phrases that go through the model together.
            return_attention: Fill :attr:`Grounding.attention`.
            on_error: What happens to one of many pictures that cannot be read; see :meth:`read`.

        Returns:
            A :class:`Grounding` for one picture and one phrase, else a list of them, in order.

        Raises:
            UserError: A picture cannot be read, a phrase is empty, or the numbers of pictures and
                phrases do not fit.
        """
        one = is_one(picture, self.kind) and isinstance(phrase, str)
        on_error = "raise" if one else on_error
        found = self.stream(picture, phrase, batch_size, return_attention, on_error)
        return next(found) if one else list(found)

    def stream(
        self,
        picture: Any,
        phrase: str | Sequence[str],
        batch_size: int = 32,
        return_attention: bool = False,
        on_error: OnError = "raise",
    ) -> Iterator[Grounding]:
        """As :meth:`ground`, but gives boxes as soon as their batch is done."""
        check_counts(batch_size=batch_size)
        phrases = text_list(phrase, "phrase")
        for batch in self.paired(picture, phrases, batch_size, on_error):
            yield from self.ground_batch(batch, return_attention)

    @torch.inference_mode()
    def ground_batch(
        self, batch: Sequence[tuple[dict[str, Any], Sequence[str]]], return_attention: bool = False
    ) -> list[Grounding]:
        """Boxes in one pass of the model.

        Args:
            batch: Samples with IDS, IMAGES and PICTURE_SIZES, each with as many phrases.
            return_attention: As in :meth:`ground`.
        """
        samples, asked = [], []
        for sample, phrases in batch:
            ids, _ = self._read_texts(phrases)
            sample, source = dict(sample), sample.get(_PICTURE)
            sample.pop(_PICTURE, None)
            size = tuple(torch.as_tensor(sample.pop(kfg.PICTURE_SIZES)).tolist())
            samples.append({**sample, kfg.U_TOKENS_IDS: ids})
            name = str(sample[kfg.IDS])
            asked += [
                (name, phrase, size, source, pieces)
                for phrase, pieces in zip(phrases, ids, strict=True)
            ]
        boxes, maps = self._boxes(samples, [len(row[4]) for row in asked], return_attention)
        return [
            Grounding(
                *(name, phrase, _within(box, size), size),
                words=tuple(self._read_texts.words(pieces)) if attention is not None else (),
                attention=attention,
                _source=source,
            )
            for (name, phrase, size, source, pieces), box, attention in zip(
                asked, boxes, maps, strict=True
            )
        ]

    def _boxes(
        self, samples: list[dict[str, Any]], lengths: list[int], return_attention: bool
    ) -> tuple[list[list[float]], list[np.ndarray | None]]:
        if not return_attention:
            inputs = self.model.preprocess_batch(samples)
            with self._autocast():
                found = self.model(inputs)[kfg.OUTPUT_BBOX]
            return found.float().tolist(), [None] * len(lengths)
        boxes, maps = [], []
        for sample in samples:
            # One text at a time: several of a picture are attended to as one row.
            for ids in sample[kfg.U_TOKENS_IDS]:
                inputs = self.model.preprocess_batch([{**sample, kfg.U_TOKENS_IDS: [ids]}])
                with record_attention(self.model) as record, self._autocast():
                    boxes += self.model(inputs)[kfg.OUTPUT_BBOX].float().tolist()
                maps.append(record.maps(0, len(ids)))
        return boxes, maps


def _within(box: Sequence[float], size: tuple[int, int]) -> Box:
    """A box of shares in pixels, cut off at the edges of the picture."""
    x, y, width, height = box_in_pixels(box, *size)
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(float(size[0]), x + width), min(float(size[1]), y + height)
    return left, top, max(0.0, right - left), max(0.0, bottom - top)


def _loaded(source: Any, name: str) -> Image.Image:
    """A picture at its own size, of a path or what is in memory."""
    if isinstance(source, UserError):
        raise source
    if not isinstance(source, str):
        if source is None or isinstance(source, list | tuple | dict):
            raise UserError(f"item {name} is no picture; .ground takes pictures")
        return as_picture(source, f"item {name}")
    from xmodaler.utils.pictures import load_picture

    if os.path.splitext(source)[1].lower() in VIDEO_SUFFIXES - PICTURE_SUFFIXES:
        raise UserError(f"'{source}' is a video, but this model looks at pictures")
    return load_picture(source)
