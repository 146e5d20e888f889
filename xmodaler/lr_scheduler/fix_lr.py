"""A constant learning rate."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from xmodaler.config import configurable

from .build import LR_SCHEDULER_REGISTRY
from .progress import ProgressStateMixin


@LR_SCHEDULER_REGISTRY.register()
class FixLR(ProgressStateMixin, LambdaLR):
    """`lr(t) = base_lr`.

    Args:
        optimizer: The optimizer to steer.
        last_epoch: Steps already made; -1 starts afresh.
    """

    @configurable
    def __init__(self, *, optimizer: Optimizer, last_epoch: int = -1) -> None:
        super().__init__(optimizer, self.lr_lambda, last_epoch)

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read nothing."""
        return {"optimizer": optimizer}

    def lr_lambda(self, step: int) -> float:
        """Factor on the base learning rate at a step."""
        return 1.0
