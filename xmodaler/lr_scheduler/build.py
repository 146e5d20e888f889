"""From a config to a learning-rate schedule."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import Registry

# Schedules that `LR_SCHEDULER.NAME` can name: classes that take `(cfg, optimizer, data_size)`.
LR_SCHEDULER_REGISTRY = Registry("LR_SCHEDULER")


def build_lr_scheduler(cfg: Any, optimizer: Optimizer, data_size: int) -> LRScheduler:
    """Build the schedule named by `LR_SCHEDULER.NAME`.

    Call `scheduler.step()` once per iteration, after `optimizer.step()`.

    Args:
        cfg: The root config; reads `LR_SCHEDULER` and the length of the run from `SOLVER`.
        optimizer: Its groups' learning rates are the base that the schedule scales.
        data_size: Iterations per epoch.

    Raises:
        UserError: If an epoch has no iteration or a `LR_SCHEDULER` value is impossible.
    """
    if data_size < 1:
        raise UserError(
            f"An epoch has {data_size} iterations, so LR_SCHEDULER.NAME {cfg.LR_SCHEDULER.NAME!r} "
            "cannot be laid out; the training set must hold at least one full batch."
        )
    schedule_class = LR_SCHEDULER_REGISTRY.get(cfg.LR_SCHEDULER.NAME)
    return schedule_class(cfg, optimizer, data_size)


def total_iterations(cfg: Any, data_size: int) -> int:
    """Length of the run: `SOLVER.MAX_ITER` where positive, else `SOLVER.EPOCH` epochs."""
    max_iter = cfg.SOLVER.get("MAX_ITER", -1)
    return max_iter if max_iter > 0 else cfg.SOLVER.EPOCH * data_size
