"""Where a training run puts what it reports: scalars, images and histograms by iteration."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from fvcore.common.history_buffer import HistoryBuffer

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
