"""What loaded models of every task share: inputs, batches, precision, and errors that help."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, NoReturn

import torch

from xmodaler.config import CfgNode
from xmodaler.inference.inputs import Item, SampleReader, expand, is_one
from xmodaler.utils.errors import UserError

__all__ = ["LoadedPredictor", "OnError", "batches", "check_counts"]

logger = logging.getLogger(__name__)

_PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
OnError = str | Callable[[str, UserError], Any]


class LoadedPredictor:
    """A model with its weights that takes pictures, videos or features, and perhaps texts.

    Made by :func:`xmodaler.inference.load`; a subclass a task.

    Args:
        model: The model with its weights; it is put into evaluation mode.
        cfg: The config of its run.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.
        weights: The file that the weights came from.
    """

    ability: ClassVar[str] = ""
    """What the model does and how to ask it, as the end of a sentence that begins with "it"."""

    generates: ClassVar[bool] = False
    """Whether it writes sentences."""

    def __init__(
        self, model: torch.nn.Module, cfg: CfgNode, precision: str = "fp32", weights: str = ""
    ) -> None:
        if precision not in _PRECISIONS:
            raise UserError(f"precision is '{precision}'; it is one of {', '.join(_PRECISIONS)}")
        self.model = model.eval()
        self.cfg = cfg
        self.precision = precision
        self.weights = weights
        self.kind = _kind(model, cfg)
        self._read = SampleReader(cfg, self.kind, self.generates)

    def __repr__(self) -> str:
        name = f"{type(self).__name__}({self.cfg.MODEL.META_ARCHITECTURE}"
        return f"{name} on {self.kind}, {self.device})"

    @property
    def reads_pictures(self) -> bool:
        """Whether the model begins at the pixels of pictures."""
        return self.kind == "pictures"

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def caption(self, *args: Any, **options: Any) -> Any:
        """Describes pictures, if the model was trained to."""
        self.refuse("caption")

    def answer(self, *args: Any, **options: Any) -> Any:
        """Answers questions about pictures, if the model was trained to."""
        self.refuse("answer")

    def choose(self, *args: Any, **options: Any) -> Any:
        """Chooses among answers, if the model was trained to."""
        self.refuse("choose")

    def retrieve(self, *args: Any, **options: Any) -> Any:
        """Ranks pictures or texts, if the model was trained to."""
        self.refuse("retrieve")

    def ground(self, *args: Any, **options: Any) -> Any:
        """Finds what phrases describe, if the model was trained to."""
        self.refuse("ground")

    def compare(self, *args: Any, **options: Any) -> Any:
        """Tells whether statements about two pictures are true, if the model was trained to."""
        self.refuse("compare")

    def refuse(self, method: str) -> NoReturn:
        """Says what the model can do, in place of a method that it has not.

        Raises:
            UserError: Always.
        """
        raise UserError(
            f"the {self.cfg.MODEL.META_ARCHITECTURE} of '{self.weights}' has no .{method}(...): it "
            f"{self.ability}"
        )

    def read(self, sources: Any, on_error: OnError = "raise") -> Iterator[dict[str, Any]]:
        """The samples of pictures, clips or features; see :meth:`Captioner.caption` for kinds.

        Args:
            sources: One or many.
            on_error: What happens to one that cannot be read: ``"raise"``, ``"skip"`` (one
                warning in the log), or a function of its id and the error.
        """
        return self._samples(expand(sources, self.kind), on_error)

    def paired(
        self, sources: Any, tasks: Sequence[Any], size: int, on_error: OnError = "raise"
    ) -> Iterator[list[tuple[dict[str, Any], list[Any]]]]:
        """Batches of pictures with what is asked about them.

        Args:
            sources: One picture or many.
            tasks: One thing to ask about every picture; or several: about one picture, or one
                about each of as many.
            size: Things in a batch.
            on_error: As in :meth:`read`.

        Returns:
            Lists of (sample, things to ask about it): one thing each, or one sample with many.

        Raises:
            UserError: There are several of both, of different number.
        """
        if len(tasks) > 1 and is_one(sources, self.kind):
            for sample in self.read(sources, on_error):
                yield from ([(sample, part)] for part in batches(tasks, size))
            return
        items = expand(sources, self.kind)
        if len(tasks) > 1:
            items = list(items)
            if len(items) != len(tasks):
                raise UserError(
                    f"{len(items)} pictures and {len(tasks)} questions do not pair up; give one "
                    "question, one picture, or as many of one as of the other"
                )
        asked = itertools.repeat(tasks[0]) if len(tasks) == 1 else tasks
        pairs = (
            (sample, [task])
            for item, task in zip(items, asked, strict=False)
            for sample in self._samples([item], on_error)
        )
        yield from batches(pairs, size)

    def _samples(self, items: Iterable[Item], on_error: OnError) -> Iterator[dict[str, Any]]:
        if on_error not in ("raise", "skip") and not callable(on_error):
            raise UserError(f"on_error is {on_error!r}; it is 'raise', 'skip' or a function")
        for item in items:
            try:
                yield self._read(item)
            except UserError as error:
                if on_error == "raise":
                    raise
                if on_error == "skip":
                    logger.warning("skipped %s: %s", item.id, error)
                else:
                    on_error(item.id, error)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        dtype = _PRECISIONS[self.precision]
        return torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()


def check_counts(**counts: int) -> None:
    """Refuses numbers below 1, by name."""
    for name, value in counts.items():
        if value < 1:
            raise UserError(f"{name} is {value}; it is at least 1")


def batches(samples: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of at most ``size`` things, in order."""
    samples = iter(samples)
    while batch := list(itertools.islice(samples, size)):
        yield batch


def _kind(model: torch.nn.Module, cfg: CfgNode) -> str:
    """What a model reads: "pictures", "videos" or "features"."""
    from xmodaler.inference.arrays import run_dataset

    embedding = getattr(model, "visual_embed", None)
    reads_pixels = getattr(embedding, "reads_pictures", None)
    loader = cfg.DATALOADER
    if reads_pixels is None:
        reads_pixels = bool(loader.IMAGE_FOLDER or loader.VIDEO_FOLDER) and not loader.FEATS_FOLDER
    if not reads_pixels:
        return "features"
    is_video = (
        bool(loader.VIDEO_FOLDER)
        or loader.TASK.VIDEO
        or getattr(run_dataset(cfg), "noun", "") == "video"
    )
    return "videos" if is_video else "pictures"
