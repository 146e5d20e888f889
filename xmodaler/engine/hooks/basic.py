"""Hooks that time, schedule and initialise."""

import datetime
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch

from xmodaler.utils import comm

from ..train_loop import HookBase, TrainerBase

logger = logging.getLogger(__name__)

Callback = Callable[[TrainerBase], Any]


class CallbackHook(HookBase):
    """A hook made of functions, each called with the trainer.

    Args:
        before_train: Called before the first iteration.
        after_train: Called after the last iteration.
        before_step: Called before each iteration.
        after_step: Called after each iteration.
    """

    def __init__(
        self,
        *,
        before_train: Callback | None = None,
        after_train: Callback | None = None,
        before_step: Callback | None = None,
        after_step: Callback | None = None,
    ) -> None:
        self._before_train = before_train
        self._after_train = after_train
        self._before_step = before_step
        self._after_step = after_step

    def before_train(self) -> None:
        if self._before_train:
            self._before_train(self.trainer)

    def after_train(self) -> None:
        if self._after_train:
            self._after_train(self.trainer)
        # The functions may hold large objects of the caller, the trainer among them.
        self._before_train = self._after_train = None
        self._before_step = self._after_step = None

    def before_step(self) -> None:
        if self._before_step:
            self._before_step(self.trainer)

    def after_step(self) -> None:
        if self._after_step:
            self._after_step(self.trainer)


class IterationTimer(HookBase):
    """Puts ``time``, the seconds of a step, and logs a summary at the end.

    Args:
        warmup_iter: Iterations at the beginning that are not counted: they are slower.
    """

    def __init__(self, warmup_iter: int = 3) -> None:
        self._warmup_iter = warmup_iter
        self._start_time = self._step_start = time.perf_counter()
        self._total = 0.0

    def before_train(self) -> None:
        self._start_time = time.perf_counter()
        self._total = 0.0

    def before_step(self) -> None:
        self._step_start = time.perf_counter()

    def after_step(self) -> None:
        done = self.trainer.iter - self.trainer.start_iter + 1
        if done >= self._warmup_iter:
            seconds = time.perf_counter() - self._step_start
            self.trainer.storage.put_scalars(time=seconds)
            self._total += seconds

    def after_train(self) -> None:
        total = time.perf_counter() - self._start_time
        steps = self.trainer.iter - self.trainer.start_iter + 1 - self._warmup_iter
        if steps > 0 and self._total > 0:
            logger.info(
                "Overall training speed: %d iterations in %s (%.4f s / it)",
                steps,
                _duration(self._total),
                self._total / steps,
            )
        logger.info(
            "Total training time: %s (%s on hooks)",
            _duration(total),
            _duration(total - self._total),
        )


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=int(seconds)))


class LRScheduler(HookBase):
    """Puts ``lr`` and steps the scheduler, once per iteration.

    Args:
        optimizer: None means the trainer's.
        scheduler: None means the trainer's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    ) -> None:
        self._optimizer = optimizer
        self._scheduler = scheduler

    def before_train(self) -> None:
        self._optimizer = self._optimizer or self.trainer.optimizer
        self._scheduler = self._scheduler or self.trainer.scheduler
        self._group = self._representative_group(self._optimizer)

    @staticmethod
    def _representative_group(optimizer: torch.optim.Optimizer) -> int:
        """The group whose learning rate is shown: the largest, or one of the commonest rate."""
        sizes = [len(group["params"]) for group in optimizer.param_groups]
        if max(sizes) > 1:
            return sizes.index(max(sizes))
        rates = [group["lr"] for group in optimizer.param_groups]
        return rates.index(Counter(rates).most_common(1)[0][0])

    def after_step(self) -> None:
        lr = self._optimizer.param_groups[self._group]["lr"]
        self.trainer.storage.put_scalar("lr", lr, smoothing_hint=False)
        self._scheduler.step()


class ScheduledSampling(HookBase):
    """Raises the probability with which a decoder is fed its own words (Bengio et al. 2015).

    After iteration ``n`` (1-based) beyond ``start_iter``:
    ``ss_prob = min(inc_prob * floor((n - start_iter) / inc_every_iter), max_prob)``.

    Args:
        start_iter: Iterations before the probability may grow.
        inc_every_iter: Iterations between two raises.
        inc_prob: Size of a raise.
        max_prob: Upper bound.
    """

    def __init__(
        self, start_iter: int, inc_every_iter: int, inc_prob: float, max_prob: float
    ) -> None:
        self.start_iter = start_iter
        self.inc_every_iter = inc_every_iter
        self.inc_prob = inc_prob
        self.max_prob = max_prob

    def after_step(self) -> None:
        beyond = self.trainer.iter + 1 - self.start_iter
        if beyond > 0:
            raises = beyond // self.inc_every_iter
            self.trainer.ss_prob = min(self.inc_prob * raises, self.max_prob)


class ModelWeightsManipulating(HookBase):
    """Lets a model tie or initialise parts of itself from others before training.

    Calls ``model.bind_or_init_weights()``, also on a model inside a distributed wrapper. A trainer
    that has to do so before it builds the optimizer offers the method itself and is asked instead.
    """

    def before_train(self) -> None:
        if hasattr(self.trainer, "bind_or_init_weights"):
            self.trainer.bind_or_init_weights()
            return
        model = comm.unwrap_model(self.trainer.model)
        if hasattr(model, "bind_or_init_weights"):
            model.bind_or_init_weights()
