"""The schedule of the Transformer."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from xmodaler.config import configurable
from xmodaler.utils.errors import UserError

from .build import LR_SCHEDULER_REGISTRY
from .progress import ProgressStateMixin


@LR_SCHEDULER_REGISTRY.register()
class NoamLR(ProgressStateMixin, LRScheduler):
    """`lr(t) = factor * model_size^-0.5 * min((t + 1)^-0.5, (t + 1) * warmup^-1.5)`.

    Vaswani et al. (2017), section 5.3. The rate is absolute: base rates and the factors of
    parameter groups play no part.

    Args:
        optimizer: The optimizer to steer.
        model_size: Width of the model.
        factor: Factor on the whole curve.
        warmup: Iterations (not epochs) until the peak.
        last_epoch: Steps already made; -1 starts afresh.
    """

    @configurable
    def __init__(
        self,
        *,
        optimizer: Optimizer,
        model_size: int,
        factor: float,
        warmup: int,
        last_epoch: int = -1,
    ) -> None:
        if warmup < 1 or model_size < 1:
            raise UserError(
                f"NoamLR: LR_SCHEDULER.WARMUP is {warmup} and LR_SCHEDULER.MODEL_SIZE is "
                f"{model_size}; both must be >= 1 (WARMUP counts iterations, 10000 is usual)."
            )
        self.model_size = model_size
        self.factor = factor
        self.warmup = warmup
        super().__init__(optimizer, last_epoch)

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read `LR_SCHEDULER.{MODEL_SIZE, FACTOR, WARMUP (iterations)}`."""
        return {
            "optimizer": optimizer,
            "model_size": cfg.LR_SCHEDULER.MODEL_SIZE,
            "factor": cfg.LR_SCHEDULER.FACTOR,
            "warmup": cfg.LR_SCHEDULER.WARMUP,
        }

    def get_lr(self) -> list[float]:
        """Learning rate of every group at the present step."""
        step = self.last_epoch + 1
        lr = self.factor * self.model_size**-0.5 * min(step**-0.5, step * self.warmup**-1.5)
        return [lr for _ in self.base_lrs]
