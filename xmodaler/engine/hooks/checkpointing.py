"""Hooks that save: regularly, and whenever a metric is better than ever."""

import logging
import math
import os
from collections.abc import Callable
from typing import Any

import torch

from xmodaler.checkpoint import PeriodicEpochCheckpointer, XmodalerCheckpointer
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError, did_you_mean

from ..train_loop import HookBase
from .evaluation import EvalHook

logger = logging.getLogger(__name__)


class PeriodicCheckpointer(PeriodicEpochCheckpointer, HookBase):
    """Saves a checkpoint every so many iterations, and ``{file_prefix}_final`` at the end.

    Registered on every rank: the state of all ranks goes into the file that rank 0 writes.

    Args:
        checkpointer: Writes the files.
        period: Iterations between two checkpoints, usually whole epochs.
        max_iter: Set when training starts.
        max_to_keep: Keep so many periodic files; None or -1 keeps all.
        file_prefix: Start of the file names.
        period_iters: A second period, for epochs that take long; 0 for none.
    """

    def __init__(
        self,
        checkpointer: XmodalerCheckpointer,
        period: int,
        max_iter: int | None = None,
        max_to_keep: int | None = None,
        file_prefix: str = "model",
        period_iters: int = 0,
    ) -> None:
        super().__init__(checkpointer, period, max_iter, max_to_keep, file_prefix)
        self.period_iters = period_iters

    def before_train(self) -> None:
        self.max_iter = self.trainer.max_iter

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        due = done % self.period == 0
        due_between = self.period_iters > 0 and done % self.period_iters == 0
        if due or due_between or done == self.max_iter:
            self._save(always=due_between)

    def save_now(self) -> None:
        """Save the current iteration outside the schedule."""
        self._save(always=True)

    def save_final(self) -> None:
        """Write the final file once more, when the last evaluation has become part of the state."""
        self._collect()
        self.save(f"{self.file_prefix}_final", iteration=self.max_iter - 1)

    def _save(self, always: bool) -> None:
        self._collect()
        period = self.period
        if always:
            self.period = 1
        try:
            iteration = self.trainer.iter
            self.step(iteration, epoch=(iteration + 1) // self._iters_per_epoch())
        finally:
            self.period = period

    def _iters_per_epoch(self) -> int:
        return getattr(self.trainer, "iters_per_epoch", self.period)

    def _collect(self) -> None:
        if hasattr(self.trainer, "before_checkpoint"):
            self.trainer.before_checkpoint()


class _BestWriter(XmodalerCheckpointer):
    """Writes weights without touching the pointer that resuming follows."""

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        with atomic_write(os.path.join(self.save_dir, "best_checkpoint"), "w") as file:
            file.write(last_filename_basename)


class BestCheckpointer(HookBase):
    """Keeps the weights with the best value of a metric in ``{file_prefix}_best.pth``.

    The text file ``best_checkpoint`` holds that name. The file has the weights, the iteration and
    the metric, no training state. Registered after the evaluations whose results it reads.

    Args:
        save_dir: Folder of the run.
        get_model: Returns the model whose weights are saved.
        metric: ``{stage}/{name}``, such as ``val/CIDEr``.
        mode: ``max`` if more is better, ``min`` if less is.
        file_prefix: Start of the file name.

    Attributes:
        best: The best value so far, None before the first.
        best_iteration: The iteration it was reached at.
    """

    def __init__(
        self,
        save_dir: str,
        get_model: Callable[[], torch.nn.Module],
        metric: str,
        mode: str = "max",
        file_prefix: str = "model",
    ) -> None:
        if mode not in ("max", "min"):
            raise UserError(f"SOLVER.BEST_MODE is '{mode}', but must be max or min.")
        self._save_dir = save_dir
        self._get_model = get_model
        self._metric = metric
        self._mode = mode
        self._file_prefix = file_prefix
        self.best: float | None = None
        self.best_iteration = -1

    def before_train(self) -> None:
        stages = [hook.stage for hook in self._evaluations()]
        stage = self._metric.split("/", 1)[0]
        if stage not in stages:
            raise UserError(
                f"SOLVER.BEST_METRIC is '{self._metric}', but the evaluations of this run are "
                f"{', '.join(stages) or 'none'}; write it as STAGE/METRIC, such as val/CIDEr."
            )
        # The evaluation that an interrupted run did not get to.
        self._compare(self.trainer.start_iter - 1)

    def after_step(self) -> None:
        self._compare(self.trainer.iter)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter:
            self._compare(self.trainer.iter - 1)

    def _evaluations(self) -> list[EvalHook]:
        return [hook for hook in self.trainer._hooks if isinstance(hook, EvalHook)]

    def _compare(self, iteration: int) -> None:
        for hook in self._evaluations():
            if hook.evaluated != iteration or iteration < 0:
                continue
            if not self._metric.startswith(f"{hook.stage}/"):
                continue
            if self._metric not in hook.metrics:
                raise UserError(
                    f"SOLVER.BEST_METRIC is '{self._metric}', but the evaluation gives "
                    f"{', '.join(hook.metrics) or 'no metric'}"
                    f"{did_you_mean(self._metric, hook.metrics)}."
                )
            value = hook.metrics[self._metric]
            if math.isfinite(value) and self._is_better(value):
                self._keep(value, iteration)

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        return value > self.best if self._mode == "max" else value < self.best

    def _keep(self, value: float, iteration: int) -> None:
        self.best, self.best_iteration = value, iteration
        logger.info("Best %s so far: %.4f at iteration %d", self._metric, value, iteration)
        writer = _BestWriter(self._get_model(), self._save_dir)
        writer.save(
            f"{self._file_prefix}_best",
            iteration=iteration,
            metric={"name": self._metric, "value": value},
        )

    def state_dict(self) -> dict[str, Any]:
        return {"metric": self._metric, "best": self.best, "best_iteration": self.best_iteration}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # The best value of another metric says nothing about this one.
        if state_dict["metric"] == self._metric:
            self.best = state_dict["best"]
            self.best_iteration = state_dict["best_iteration"]
