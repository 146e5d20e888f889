"""Hooks to look into training: a profiler, and precise batch-norm statistics."""

import itertools
import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

import torch

from xmodaler.utils import comm
from xmodaler.utils.events import EventStorage

from ..train_loop import HookBase, TrainerBase

logger = logging.getLogger(__name__)


class AutogradProfiler(HookBase):
    """Records chosen iterations in ``{output_dir}/profiler-trace-iter{iter}.json``.

    The files open in Perfetto or in ``chrome://tracing``::

        AutogradProfiler(lambda trainer: 10 < trainer.iter < 20, cfg.OUTPUT_DIR)

    Args:
        enable_predicate: Called with the trainer before each step; whether to record the step.
        output_dir: Folder of the traces.
        use_cuda: Record CUDA kernels too, where there is CUDA.
    """

    def __init__(
        self,
        enable_predicate: Callable[[TrainerBase], bool],
        output_dir: str,
        *,
        use_cuda: bool = True,
    ) -> None:
        self._enable_predicate = enable_predicate
        self._output_dir = output_dir
        self._use_cuda = use_cuda
        self._profiler: torch.profiler.profile | None = None

    def before_step(self) -> None:
        if not self._enable_predicate(self.trainer):
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self._use_cuda and torch.cuda.is_available():
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        self._profiler.__enter__()

    def after_step(self) -> None:
        if self._profiler is None:
            return
        self._profiler.__exit__(None, None, None)
        os.makedirs(self._output_dir, exist_ok=True)
        path = os.path.join(self._output_dir, f"profiler-trace-iter{self.trainer.iter}.json")
        self._profiler.export_chrome_trace(path)
        self._profiler = None
        logger.info("Wrote the profile of iteration %d to %s", self.trainer.iter, path)


class PreciseBN(HookBase):
    """Recomputes batch-norm statistics with fixed weights (Wu and Johnson 2021, section 3).

    The running averages trail the weights while these move; averaging the statistics of
    ``num_iter`` batches under the current weights evaluates better.

    Args:
        period: Iterations between two updates; 0 updates at the end only.
        model: The model; nothing happens if none of its batch-norm layers is in training mode.
        data_loader: Yields batches for the model, or lists of samples.
        num_iter: Batches per update.
    """

    def __init__(
        self, period: int, model: torch.nn.Module, data_loader: Iterable[Any], num_iter: int
    ) -> None:
        from fvcore.nn.precise_bn import get_bn_modules

        self._model = comm.unwrap_model(model)
        self._disabled = not get_bn_modules(self._model)
        if self._disabled:
            logger.info("PreciseBN has no batch-norm layer in training mode to update.")
        self._data_loader = data_loader
        self._num_iter = num_iter
        self._period = period
        self._batches: Any = None

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or (self._period > 0 and done % self._period == 0):
            self.update_stats()

    @torch.no_grad()
    def update_stats(self) -> None:
        """Replace the running statistics by the average over ``num_iter`` batches."""
        from fvcore.nn.precise_bn import update_bn_stats

        if self._disabled:
            return
        if self._batches is None:
            self._batches = self._endless_batches()
        # What the forward passes report is not part of training.
        with EventStorage():
            update_bn_stats(
                self._model, itertools.islice(self._batches, self._num_iter), self._num_iter
            )

    def _endless_batches(self) -> Iterable[Any]:
        prepare = getattr(self._model, "preprocess_batch", lambda batch: batch)
        while True:
            for batch in self._data_loader:
                yield prepare(batch)
