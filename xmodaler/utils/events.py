"""Training events: where scalars, images and histograms are put, and who writes them out."""

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
from .file_io import PathManager

__all__ = [
    "CommonMetricPrinter",
    "EventStorage",
    "EventWriter",
    "JSONWriter",
    "TensorboardXWriter",
    "get_event_storage",
]

_STORAGE_STACK: list["EventStorage"] = []
# Unread tensors beyond this many are converted, so that memory stays bounded without a reader.
_MAX_PENDING = 10_000


def get_event_storage() -> "EventStorage":
    """The innermost :class:`EventStorage` whose ``with`` block is open.

    Raises:
        AssertionError: None is open.
    """
    if not _STORAGE_STACK:
        raise AssertionError("get_event_storage() has to be called inside a 'with EventStorage'")
    return _STORAGE_STACK[-1]


class EventStorage:
    """Holds what a training run reports, by name and iteration.

    Scalars given as tensors are converted when they are first read or written, all together, so
    that putting one never waits for the device.

    Args:
        start_iter: The iteration to start from.
    """

    def __init__(self, start_iter: int = 0) -> None:
        self._history: dict[str, HistoryBuffer] = defaultdict(HistoryBuffer)
        self._smoothing_hints: dict[str, bool] = {}
        self._latest_scalars: dict[str, tuple[float, int]] = {}
        self._pending: list[tuple[str, Any, int]] = []
        self._iter = start_iter
        self._current_prefix = ""
        self._vis_data: list[tuple[str, Any, int]] = []
        self._histograms: list[dict[str, Any]] = []

    # -- putting ------------------------------------------------------------------------------

    def put_scalar(self, name: str, value: Any, smoothing_hint: bool = True) -> None:
        """Add one value of a scalar at the current iteration.

        Args:
            name: The name; an open :meth:`name_scope` is put before it.
            value: A number or a tensor of one element (0-d), on any device.
            smoothing_hint: Whether the scalar is noisy and best shown smoothed. It must be the
                same at every call for one name.
        """
        name = self._current_prefix + name
        known = self._smoothing_hints.setdefault(name, smoothing_hint)
        if known != smoothing_hint:
            raise AssertionError(f"Scalar {name} was put with another smoothing_hint before")
        if hasattr(value, "detach"):
            # Cloned, because compiled and captured graphs overwrite their outputs.
            self._pending.append((name, value.detach().clone(), self._iter))
            if len(self._pending) > _MAX_PENDING:
                self._convert_pending()
        elif self._pending:
            self._pending.append((name, float(value), self._iter))
        else:
            self._add(name, float(value), self._iter)

    def put_scalars(self, *, smoothing_hint: bool = True, **kwargs: Any) -> None:
        """Add several scalars: ``storage.put_scalars(loss=loss, accuracy=accuracy)``."""
        for name, value in kwargs.items():
            self.put_scalar(name, value, smoothing_hint=smoothing_hint)

    def put_image(self, img_name: str, img_tensor: Any) -> None:
        """Add an image for TensorBoard.

        Args:
            img_name: Its title.
            img_tensor: (3, height, width) tensor or array: uint8, or float in [0, 1].
        """
        self._vis_data.append((img_name, img_tensor, self._iter))

    def put_histogram(self, hist_name: str, hist_tensor: Any, bins: int = 1000) -> None:
        """Add the histogram of a tensor for TensorBoard.

        Args:
            hist_name: Its title.
            hist_tensor: Tensor of any shape.
            bins: Number of equal bins between the least and the greatest value.
        """
        import torch

        values = hist_tensor.detach().float().reshape(-1).cpu()
        low, high = values.min().item(), values.max().item()
        counts = torch.histc(values, bins=bins)
        edges = torch.linspace(low, high, steps=bins + 1)
        self._histograms.append(
            {
                "tag": hist_name,
                "min": low,
                "max": high,
                "num": values.numel(),
                "sum": values.sum().item(),
                "sum_squares": values.square().sum().item(),
                "bucket_limits": edges[1:].tolist(),
                "bucket_counts": counts.tolist(),
                "global_step": self._iter,
            }
        )

    def _add(self, name: str, value: float, iteration: int) -> None:
        self._history[name].update(value, iteration)
        self._latest_scalars[name] = (value, iteration)

    def _convert_pending(self) -> None:
        """Move the scalars put as tensors into the histories, with one copy per device."""
        if not self._pending:
            return
        import torch

        pending, self._pending = self._pending, []
        groups: dict[Any, list[int]] = defaultdict(list)
        values: list[float] = [0.0] * len(pending)
        for index, (_, value, _) in enumerate(pending):
            if isinstance(value, float):
                values[index] = value
            else:
                groups[value.device, value.dtype].append(index)
        for indices in groups.values():
            stacked = torch.stack([pending[index][1].reshape(()) for index in indices])
            for index, value in zip(indices, stacked.tolist(), strict=True):
                values[index] = float(value)
        for (name, _, iteration), value in zip(pending, values, strict=True):
            self._add(name, value, iteration)

    # -- reading ------------------------------------------------------------------------------

    def history(self, name: str) -> HistoryBuffer:
        """All values of one scalar.

        Raises:
            KeyError: It was never put.
        """
        self._convert_pending()
        if name not in self._history:
            raise KeyError(f"No history metric available for {name}!")
        return self._history[name]

    def histories(self) -> dict[str, HistoryBuffer]:
        """The history of every scalar."""
        self._convert_pending()
        return self._history

    def latest(self) -> dict[str, tuple[float, int]]:
        """The last value of every scalar and the iteration it was put at."""
        self._convert_pending()
        return self._latest_scalars

    def latest_with_smoothing_hint(self, window_size: int = 20) -> dict[str, tuple[float, int]]:
        """As :meth:`latest`, but the median of the last values where the scalar is noisy.

        Args:
            window_size: How many values the median is taken over.
        """
        return {
            name: (
                float(self._history[name].median(window_size))
                if self._smoothing_hints[name]
                else value,
                iteration,
            )
            for name, (value, iteration) in self.latest().items()
        }

    def smoothing_hints(self) -> dict[str, bool]:
        """Whether each scalar is noisy."""
        return self._smoothing_hints

    def clear_images(self) -> None:
        """Forget the images; a writer does so once it has written them."""
        self._vis_data = []

    def clear_histograms(self) -> None:
        """Forget the histograms; a writer does so once it has written them."""
        self._histograms = []

    # -- position -----------------------------------------------------------------------------

    @property
    def iter(self) -> int:
        """The current iteration."""
        return self._iter

    @iter.setter
    def iter(self, value: int) -> None:
        self._iter = int(value)

    @property
    def iteration(self) -> int:
        """The current iteration (older name of :attr:`iter`)."""
        return self._iter

    def step(self) -> None:
        """Go to the next iteration."""
        self._iter += 1

    @contextlib.contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Within the block, ``name/`` is put before the name of every scalar."""
        outer = self._current_prefix
        self._current_prefix = outer + name.rstrip("/") + "/"
        try:
            yield
        finally:
            self._current_prefix = outer

    def __enter__(self) -> "EventStorage":
        _STORAGE_STACK.append(self)
        return self

    def __exit__(self, *exception: Any) -> None:
        if not _STORAGE_STACK or _STORAGE_STACK[-1] is not self:
            raise AssertionError("EventStorage blocks must be closed in the order of opening")
        _STORAGE_STACK.pop()


class EventWriter:
    """Base of the classes that take events from the open :class:`EventStorage`."""

    def write(self) -> None:
        """Write what is new since the last call."""
        raise NotImplementedError

    def close(self) -> None:
        """Release files."""


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
        self._last_write = -1
        with self._errors_named():
            torn = _ends_in_mid_line(self._filename)
            self._file = PathManager.open(self._filename, "a", encoding="utf-8")
            if torn:
                # A killed run may have left half a line; its remains must not swallow the next.
                self._file.write("\n")

    def write(self) -> None:
        """Append the scalars put since the last call, one line per iteration."""
        lines: dict[int, dict[str, Any]] = defaultdict(dict)
        latest = get_event_storage().latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
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
        self._last_write = max(lines)

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
        self._last_write = -1
        self._writer = SummaryWriter(log_dir, **kwargs)

    def write(self) -> None:
        """Write what was put since the last call and clear the images and histograms."""
        storage = get_event_storage()
        newest = self._last_write
        latest = storage.latest_with_smoothing_hint(self._window_size)
        for name, (value, iteration) in latest.items():
            if iteration > self._last_write:
                self._writer.add_scalar(name, value, iteration)
                newest = max(newest, iteration)
        self._last_write = newest
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
