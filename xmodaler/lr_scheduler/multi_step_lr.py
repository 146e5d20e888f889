"""Stairs at given epochs, with or without a warm-up."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from xmodaler.config import configurable
from xmodaler.utils.errors import UserError

from .build import LR_SCHEDULER_REGISTRY
from .progress import ProgressStateMixin


@LR_SCHEDULER_REGISTRY.register()
class MultiStepLR(ProgressStateMixin, torch.optim.lr_scheduler.MultiStepLR):
    """`lr(t) = base_lr * gamma^(number of milestones <= t)`.

    Args:
        optimizer: The optimizer to steer.
        milestones: Iterations at which the rate drops; one named twice counts twice.
        gamma: Factor at each milestone.
        last_epoch: Steps already made; -1 starts afresh.
    """

    @configurable
    def __init__(
        self,
        *,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        last_epoch: int = -1,
    ) -> None:
        super().__init__(optimizer, milestones, gamma, last_epoch)

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read `LR_SCHEDULER.{MILESTONES (epochs), GAMMA}`."""
        return {
            "optimizer": optimizer,
            "milestones": [epoch * data_size for epoch in cfg.LR_SCHEDULER.MILESTONES],
            "gamma": cfg.LR_SCHEDULER.GAMMA,
        }

    def get_lr(self) -> list[float]:
        """Learning rate of every group at the present step."""
        # Not torch's running product: the rate must depend on the step and the config alone.
        return self._get_closed_form_lr()


@LR_SCHEDULER_REGISTRY.register()
class WarmupMultiStepLR(ProgressStateMixin, LRScheduler):
    """`lr(t) = base_lr * warm(t) * gamma^(number of milestones <= t)`.

    With `f = warmup_factor` and `w = warmup_iters`, for `t < w`: `warm(t) = f (1 - t/w) + t/w`
    ("linear") or `f` ("constant"); 1 from `w` on.

    Args:
        optimizer: The optimizer to steer.
        milestones: Iterations at which the rate drops, in increasing order.
        gamma: Factor at each milestone.
        warmup_factor: Factor at the start of the warm-up.
        warmup_iters: Length of the warm-up in iterations.
        warmup_method: "linear" or "constant".
        last_epoch: Steps already made; -1 starts afresh.
    """

    @configurable
    def __init__(
        self,
        *,
        optimizer: Optimizer,
        milestones: Sequence[int],
        gamma: float = 0.1,
        warmup_factor: float = 1.0 / 3,
        warmup_iters: int = 500,
        warmup_method: str = "linear",
        last_epoch: int = -1,
    ) -> None:
        if list(milestones) != sorted(milestones):
            raise UserError(
                f"WarmupMultiStepLR: the milestones {list(milestones)} (LR_SCHEDULER.STEPS) "
                "must stand in increasing order."
            )
        if warmup_method not in ("linear", "constant"):
            raise UserError(
                f"WarmupMultiStepLR: LR_SCHEDULER.WARMUP_METHOD is {warmup_method!r}; "
                "it must be 'linear' or 'constant'."
            )
        self.milestones = list(milestones)
        self.gamma = gamma
        self.warmup_factor = warmup_factor
        self.warmup_iters = warmup_iters
        self.warmup_method = warmup_method
        super().__init__(optimizer, last_epoch)

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read `LR_SCHEDULER.{STEPS, WARMUP (epochs), GAMMA, WARMUP_FACTOR, WARMUP_METHOD}`."""
        return {
            "optimizer": optimizer,
            "milestones": [epoch * data_size for epoch in cfg.LR_SCHEDULER.STEPS],
            "gamma": cfg.LR_SCHEDULER.GAMMA,
            "warmup_factor": cfg.LR_SCHEDULER.WARMUP_FACTOR,
            "warmup_iters": cfg.LR_SCHEDULER.WARMUP * data_size,
            "warmup_method": cfg.LR_SCHEDULER.WARMUP_METHOD,
        }

    def get_lr(self) -> list[float]:
        """Learning rate of every group at the present step."""
        step = self.last_epoch
        factor = self.gamma ** bisect_right(self.milestones, step)
        if step < self.warmup_iters:
            progress = step / self.warmup_iters if self.warmup_method == "linear" else 0.0
            factor *= self.warmup_factor * (1 - progress) + progress
        return [base_lr * factor for base_lr in self.base_lrs]
