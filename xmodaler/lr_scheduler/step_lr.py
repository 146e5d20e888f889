"""Stairs of equal width."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

from xmodaler.config import configurable
from xmodaler.utils.errors import UserError

from .build import LR_SCHEDULER_REGISTRY
from .progress import ProgressStateMixin


@LR_SCHEDULER_REGISTRY.register()
class StepLR(ProgressStateMixin, torch.optim.lr_scheduler.StepLR):
    """`lr(t) = base_lr * gamma^floor(t / step_size)`.

    Args:
        optimizer: The optimizer to steer.
        step_size: Width of a stair in iterations.
        gamma: Factor from one stair to the next.
    """

    @configurable
    def __init__(self, *, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        if step_size < 1:
            raise UserError(
                f"StepLR: the step size is {step_size}; LR_SCHEDULER.STEP_SIZE must be >= 1 epoch."
            )
        super().__init__(optimizer, step_size, gamma)

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read `LR_SCHEDULER.{STEP_SIZE (epochs), GAMMA}`."""
        return {
            "optimizer": optimizer,
            "step_size": cfg.LR_SCHEDULER.STEP_SIZE * data_size,
            "gamma": cfg.LR_SCHEDULER.GAMMA,
        }

    def get_lr(self) -> list[float]:
        """Learning rate of every group at the present step."""
        # Not torch's running product: the rate must depend on the step and the config alone.
        return self._get_closed_form_lr()
