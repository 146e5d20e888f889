"""Training events: the storage they are put in, and who writes them out."""

import contextlib
import datetime
import json
import logging
import math
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from fvcore.common.history_buffer import HistoryBuffer

from .errors import MissingDependencyError, UserError
from .event_storage import EventStorage, get_event_storage
from .file_io import PathManager

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardWriter",
    "TensorboardXWriter",
    "get_event_storage",
]


class EventWriter:
    """Base of the classes that take events from the open :class:`EventStorage`."""

    def write(self) -> None:
        """Write what is new since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files."""


class _News:
    """What one writer has not seen yet of the scalars in the open storage."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def take(self, window_size: int) -> list[tuple[str, float, int]]:
        """(name, value, iteration) of the scalars put at a later iteration than last time."""
        news = []
        latest = get_event_storage().latest_with_smoothing_hint(window_size)
        for name, (value, iteration) in latest.items():
            # By name: one that is first put after this iteration was written is not lost.
            if iteration > self._seen.get(name, -1):
                self._seen[name] = iteration
                news.append((name, value, iteration))
        return news


class JSONWriter(EventWriter):
    """Appends scalars to a file of JSON lines.

    Each line is an object with sorted keys: ``iteration`` and the scalars last put at it. Only
    what is newer than the previous write is written. A value that is not finite is ``null``.

    Args:
        json_file: The file; lines are appended.
        window_size: Window of the median of noisy scalars.

    Raises:
        UserError: The file cannot be opened or written.
    """

    def __init__(self, json_file: str | os.PathLike[str], window_size: int = 20) -> None:
        self._filename = os.fspath(json_file)
        self._window_size = window_size
        self._news = _News()
        with self._errors_named():
            torn = _ends_in_mid_line(self._filename)
            self._file = PathManager.open(self._filename, "a", encoding="utf-8")
            if torn:
                # A killed run may have left half a line; its remains must not swallow the next.
                self._file.write("\n")

    def write(self) -> None:
        """Append the scalars put since the last call, one line per iteration."""
        lines: dict[int, dict[str, Any]] = defaultdict(dict)
        for name, value, iteration in self._news.take(self._window_size):
            lines[iteration][name] = value if math.isfinite(value) else None
        if not lines:
            return
        with self._errors_named():
            for iteration in sorted(lines):
                record = {**lines[iteration], "iteration": iteration}
                self._file.write(json.dumps(record, sort_keys=True, ensure_ascii=False) + "\n")
            self._file.flush()
            with contextlib.suppress(OSError, AttributeError):
                os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or error
            raise UserError(
                f"Metrics file '{self._filename}' cannot be written: {reason}"
            ) from error


def _ends_in_mid_line(filename: str) -> bool:
    if not os.path.isfile(filename) or os.path.getsize(filename) == 0:
        return False
    with open(filename, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


class TensorboardXWriter(EventWriter):
    """Writes scalars, images and histograms to TensorBoard event files.

    Args:
        log_dir: Folder of the event files.
        window_size: Window of the median of noisy scalars.
        **kwargs: Further arguments of ``torch.utils.tensorboard.SummaryWriter``.

    Raises:
        MissingDependencyError: The tensorboard package is not installed.
    """

    def __init__(self, log_dir: str, window_size: int = 20, **kwargs: Any) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingDependencyError(
                "TensorboardXWriter needs the tensorboard package: pip install tensorboard"
            ) from error
        self._window_size = window_size
        self._news = _News()
        self._writer = SummaryWriter(log_dir, **kwargs)

    def write(self) -> None:
        """Write what was put since the last call and clear the images and histograms."""
        storage = get_event_storage()
        for name, value, iteration in self._news.take(self._window_size):
            self._writer.add_scalar(name, value, iteration)
        for name, image, iteration in storage._vis_data:
            self._writer.add_image(name, image, iteration)
        storage.clear_images()
        for histogram in storage._histograms:
            self._writer.add_histogram_raw(**histogram)
        storage.clear_histograms()
        self._writer.flush()

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()


# A spelling of the X-modaler documentation.
TensorboardWriter = TensorboardXWriter


class CommonMetricPrinter(EventWriter):
    """Logs one line on the state of training.

    ``eta: h:mm:ss  iter: i  {losses}  time: s  data_time: s  lr: x  max_mem: nM``, fields that
    are not known left out. Shown between ``iter`` and ``time`` is every noisy scalar that was
    put, ``total_loss`` first, other losses next, metrics last, each as the median of the last 20.

    Args:
        max_iter: Total number of iterations, for the time left; None shows none.
    """

    _TIMES = frozenset({"time", "data_time", "eta_seconds", "lr"})

    def __init__(self, max_iter: int | None = None) -> None:
        self.logger = logging.getLogger(__name__)
        self._max_iter = max_iter
        self._last_write: tuple[int, float] | None = None

    def write(self) -> None:
        """Log the line; nothing once the last iteration is over."""
        storage = get_event_storage()
        iteration = storage.iter
        if iteration == self._max_iter:
            return
        histories = storage.histories()
        eta = self._eta(storage, histories)
        fields = [f"eta: {eta}"] if eta else []
        fields.append(f"iter: {iteration}")
        fields.extend(
            f"{name}: {histories[name].median(20):.4g}"
            for name in self._shown(histories, storage.smoothing_hints())
        )
        if "time" in histories:
            fields.append(f"time: {histories['time'].global_avg():.4f}")
        if "data_time" in histories:
            fields.append(f"data_time: {histories['data_time'].avg(20):.4f}")
        fields.append(f"lr: {histories['lr'].latest():.5g}" if "lr" in histories else "lr: N/A")
        fields.append(_peak_memory())
        self.logger.info(" " + "  ".join(fields))

    def _shown(
        self, histories: Mapping[str, HistoryBuffer], hints: Mapping[str, bool]
    ) -> list[str]:
        names = [name for name in histories if hints[name] and name not in self._TIMES]

        def rank(name: str) -> int:
            if name.endswith("total_loss"):
                return 0
            return 1 if "loss" in name.lower() or "criterion" in name.lower() else 2

        return sorted(names, key=rank)

    def _eta(self, storage: EventStorage, histories: Mapping[str, HistoryBuffer]) -> str | None:
        if self._max_iter is None:
            return None
        iteration = storage.iter
        remaining = self._max_iter - iteration - 1
        if "time" in histories:
            seconds = float(histories["time"].median(1000)) * remaining
            storage.put_scalar("eta_seconds", seconds, smoothing_hint=False)
            return str(datetime.timedelta(seconds=int(seconds)))
        # Without a timer, the pace since the previous line has to do.
        now = time.perf_counter()
        previous, self._last_write = self._last_write, (iteration, now)
        if previous is None or iteration <= previous[0]:
            return None
        pace = (now - previous[1]) / (iteration - previous[0])
        return str(datetime.timedelta(seconds=int(pace * remaining)))


def _peak_memory() -> str:
    """``max_mem: nM`` on a CUDA device; an empty field elsewhere."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return ""
    return f"max_mem: {torch.cuda.max_memory_allocated() / 2**20:.0f}M"
