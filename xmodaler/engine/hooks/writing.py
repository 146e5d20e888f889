"""Hooks that show how training goes."""

import logging
from typing import Any

from xmodaler.utils.events import EventWriter

from ..train_loop import HookBase


class PeriodicWriter(HookBase):
    """Calls ``write()`` of its writers every ``period`` iterations and after the last one.

    Args:
        writers: What is written to.
        period: Iterations between two writes.
    """

    def __init__(self, writers: list[EventWriter], period: int = 20) -> None:
        for writer in writers:
            if not isinstance(writer, EventWriter):
                raise AssertionError(f"{type(writer).__name__} is no EventWriter.")
        self._writers = writers
        self._period = period

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            for writer in self._writers:
                writer.write()

    def after_train(self) -> None:
        storage = self.trainer.storage
        if storage.iter < self.trainer.max_iter:
            # Training ended early; the iteration that was next has nothing to report.
            storage.iter = max(storage.iter - 1, self.trainer.start_iter)
        for writer in self._writers:
            # What came after the last write, such as the final evaluation.
            writer.write()
            writer.close()


class ProgressBar(HookBase):
    """A tqdm bar over the iterations, with the latest loss beside it.

    Args:
        period: Iterations between two updates; reading the loss waits for the device.
    """

    def __init__(self, period: int = 20) -> None:
        self._period = period
        self._bar: Any = None
        self._redirection: Any = None

    def before_train(self) -> None:
        from tqdm import tqdm
        from tqdm.contrib.logging import logging_redirect_tqdm

        # Log lines appear above the bar and do not break it.
        logger = logging.getLogger("xmodaler")
        before = list(logger.handlers)
        self._redirection = logging_redirect_tqdm([logger])
        self._redirection.__enter__()
        replaced = [handler for handler in before if handler not in logger.handlers]
        for handler in logger.handlers:
            if handler not in before and replaced:
                # The stand-in shows what the console showed, no more.
                handler.setLevel(min(old.level for old in replaced))
        self._bar = tqdm(
            total=self.trainer.max_iter,
            initial=self.trainer.start_iter,
            desc="train",
            unit="it",
            dynamic_ncols=True,
        )

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            latest = self.trainer.storage.latest().get("total_loss")
            if latest is not None:
                self._bar.set_postfix(loss=f"{float(latest[0]):.3f}", refresh=False)
            self._bar.update(done - self._bar.n)

    def after_train(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
            self._redirection.__exit__(None, None, None)
