"""Linear warm-up, then constant, linear, cosine, or cosine with restarts."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from xmodaler.config import configurable
from xmodaler.utils.errors import UserError

from .build import LR_SCHEDULER_REGISTRY, total_iterations
from .progress import ProgressStateMixin


class _WarmupSchedule(ProgressStateMixin, LambdaLR):
    """`lr(t) = base_lr * (t / w if t < w else after_warmup(t))` with `w = warmup_steps`."""

    def __init__(self, optimizer: Optimizer, warmup_steps: int, last_epoch: int) -> None:
        self.warmup_steps = warmup_steps
        super().__init__(optimizer, self.lr_lambda, last_epoch)

    def lr_lambda(self, step: int) -> float:
        """Factor on the base learning rate at a step."""
        if step < self.warmup_steps:
            return step / max(1, self.warmup_steps)
        return self.after_warmup(step)

    def after_warmup(self, step: int) -> float:
        """Factor on the base learning rate once the warm-up is over."""
        raise NotImplementedError


@LR_SCHEDULER_REGISTRY.register()
class WarmupConstant(_WarmupSchedule):
    """Linear warm-up, then `lr(t) = base_lr`.

    Args:
        optimizer: The optimizer to steer.
        warmup_steps: Length of the warm-up in iterations.
        last_epoch: Steps already made; -1 starts afresh.
    """

    @configurable
    def __init__(self, *, optimizer: Optimizer, warmup_steps: int, last_epoch: int = -1) -> None:
        super().__init__(optimizer, warmup_steps, last_epoch)

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read `LR_SCHEDULER.WARMUP` (epochs)."""
        return {"optimizer": optimizer, "warmup_steps": cfg.LR_SCHEDULER.WARMUP * data_size}

    def after_warmup(self, step: int) -> float:
        """Always 1."""
        return 1.0


@LR_SCHEDULER_REGISTRY.register()
class WarmupLinear(_WarmupSchedule):
    """Linear warm-up, then `lr(t) = base_lr * max(min_lr, (t_total - t) / (t_total - w))`.

    Args:
        optimizer: The optimizer to steer.
        min_lr: Smallest factor (not an absolute learning rate).
        warmup_steps: Length `w` of the warm-up in iterations.
        t_total: Length of the run in iterations.
        last_epoch: Steps already made; -1 starts afresh.
    """

    @configurable
    def __init__(
        self,
        *,
        optimizer: Optimizer,
        min_lr: float,
        warmup_steps: int,
        t_total: int,
        last_epoch: int = -1,
    ) -> None:
        self.min_lr = min_lr
        self.t_total = t_total
        super().__init__(optimizer, warmup_steps, last_epoch)

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read `LR_SCHEDULER.{WARMUP (epochs), MIN_LR}` and the length of the run."""
        return {
            "optimizer": optimizer,
            "min_lr": cfg.LR_SCHEDULER.MIN_LR,
            "warmup_steps": cfg.LR_SCHEDULER.WARMUP * data_size,
            "t_total": total_iterations(cfg, data_size),
        }

    def after_warmup(self, step: int) -> float:
        """Fall linearly to `min_lr`."""
        left = (self.t_total - step) / max(1, self.t_total - self.warmup_steps)
        return max(self.min_lr, left)


@LR_SCHEDULER_REGISTRY.register()
class WarmupLinearSteps(WarmupLinear):
    """Linear warm-up of so many iterations, then a line to a rate that is not 0.

    `lr(t) = base_lr * max(r, (t_total - (1 - r) t) / (t_total - w))` after it, with `r = min_lr`
    (X²-VLM, Zeng et al. 2022, released code). With `r > 0` the rate jumps above `base_lr` at the
    end of the warm-up and ends above `r`; published recipes of pre-training have `r = 0`.

    Args:
        optimizer, min_lr, warmup_steps, t_total, last_epoch: As for :class:`WarmupLinear`.
    """

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read `LR_SCHEDULER.{WARMUP (iterations), WARMUP_SHARE, MIN_LR}` and the length."""
        settings, total = cfg.LR_SCHEDULER, total_iterations(cfg, data_size)
        share = settings.WARMUP_SHARE
        if not 0 <= share < 1:
            raise UserError(f"LR_SCHEDULER.WARMUP_SHARE is {share}; it must lie in [0, 1)")
        return {
            "optimizer": optimizer,
            "min_lr": settings.MIN_LR,
            "warmup_steps": int(share * total) if share > 0 else settings.WARMUP,
            "t_total": total,
        }

    def after_warmup(self, step: int) -> float:
        """Fall linearly, but not below `min_lr`."""
        left = self.t_total - (1 - self.min_lr) * step
        return max(self.min_lr, left / max(1, self.t_total - self.warmup_steps))


@LR_SCHEDULER_REGISTRY.register()
class WarmupCosine(_WarmupSchedule):
    """Linear warm-up, then `lr(t) = base_lr * max(min_lr, (1 + cos(2 pi cycles p)) / 2)`.

    `p = (t - w) / (t_total - w)`; Loshchilov & Hutter (2017). Past `t_total` the rate rises again.

    Args:
        optimizer: The optimizer to steer.
        min_lr: Smallest factor (not an absolute learning rate).
        warmup_steps: Length `w` of the warm-up in iterations.
        t_total: Length of the run in iterations.
        cycles: Periods of the cosine in a run; 0.5 falls once.
        last_epoch: Steps already made; -1 starts afresh.
    """

    @configurable
    def __init__(
        self,
        *,
        optimizer: Optimizer,
        min_lr: float,
        warmup_steps: int,
        t_total: int,
        cycles: float = 0.5,
        last_epoch: int = -1,
    ) -> None:
        self.min_lr = min_lr
        self.t_total = t_total
        self.cycles = cycles
        super().__init__(optimizer, warmup_steps, last_epoch)

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read `LR_SCHEDULER.{WARMUP (epochs), MIN_LR}` and the length of the run."""
        return {
            "optimizer": optimizer,
            "min_lr": cfg.LR_SCHEDULER.MIN_LR,
            "warmup_steps": cfg.LR_SCHEDULER.WARMUP * data_size,
            "t_total": total_iterations(cfg, data_size),
        }

    def after_warmup(self, step: int) -> float:
        """Follow the cosine, but not below `min_lr`."""
        progress = (step - self.warmup_steps) / max(1, self.t_total - self.warmup_steps)
        return max(self.min_lr, 0.5 * (1.0 + math.cos(math.pi * 2.0 * self.cycles * progress)))


@LR_SCHEDULER_REGISTRY.register()
class WarmupCosineWithHardRestarts(_WarmupSchedule):
    """Linear warm-up, then `lr(t) = base_lr * (1 + cos(pi (cycles p mod 1))) / 2`, 0 at the end.

    `p = (t - w) / (t_total - w)`; Loshchilov & Hutter (2017).

    Args:
        optimizer: The optimizer to steer.
        warmup_steps: Length `w` of the warm-up in iterations.
        t_total: Length of the run in iterations.
        cycles: How many times the rate falls from 1 to 0.
        last_epoch: Steps already made; -1 starts afresh.
    """

    @configurable
    def __init__(
        self,
        *,
        optimizer: Optimizer,
        warmup_steps: int,
        t_total: int,
        cycles: float = 1.0,
        last_epoch: int = -1,
    ) -> None:
        self.t_total = t_total
        self.cycles = cycles
        super().__init__(optimizer, warmup_steps, last_epoch)

    @classmethod
    def from_config(cls, cfg: Any, optimizer: Optimizer, data_size: int) -> dict[str, Any]:
        """Read `LR_SCHEDULER.WARMUP` (epochs) and the length of the run."""
        return {
            "optimizer": optimizer,
            "warmup_steps": cfg.LR_SCHEDULER.WARMUP * data_size,
            "t_total": total_iterations(cfg, data_size),
        }

    def after_warmup(self, step: int) -> float:
        """Fall along half a cosine, `cycles` times."""
        progress = (step - self.warmup_steps) / max(1, self.t_total - self.warmup_steps)
        if progress >= 1.0:
            return 0.0
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((self.cycles * progress) % 1.0))))
