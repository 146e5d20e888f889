"""The hook that evaluates during training."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from ..rng import isolated_rng
from ..train_loop import HookBase

logger = logging.getLogger(__name__)


class EvalHook(HookBase):
    """Evaluates every ``eval_period`` epochs and, once, at the end of training.

    Metrics are stored as ``{stage}/{name}``. Evaluation does not move the random number generators
    of training. A run that was killed between its checkpoint and the evaluation of that iteration
    catches up on it when it is resumed.

    Args:
        eval_period: Epochs between two evaluations; 0 evaluates at the end only.
        eval_start: During training, evaluate only in epochs later than this.
        eval_function: ``epoch -> dict`` of metrics, possibly nested.
        iters_per_epoch: Iterations of an epoch.
        stage: Name of the evaluation, such as ``val`` or ``test_ema``.
        multi_gpu_eval: Every rank calls ``eval_function``; otherwise only the main one does and
            the others wait.

    Attributes:
        evaluated: The iteration evaluated last, -1 before the first evaluation.
        metrics: Its results, flat, under ``{stage}/{name}``.
        ran: Whether an evaluation took place since the hook was built.
    """

    def __init__(
        self,
        eval_period: int,
        eval_start: int,
        eval_function: Callable[[int], Mapping[str, Any] | None],
        iters_per_epoch: int,
        stage: str,
        multi_gpu_eval: bool,
    ) -> None:
        self._period = eval_period * iters_per_epoch
        self._eval_start = eval_start
        self._function = eval_function
        self._iters_per_epoch = iters_per_epoch
        self._multi_gpu_eval = multi_gpu_eval
        self.stage = stage
        self.evaluated = -1
        self.metrics: dict[str, float] = {}
        self.ran = False

    def before_train(self) -> None:
        """Evaluate the resumed iteration if the interrupted run did not get to it."""
        last = self.trainer.start_iter - 1
        if last >= 0 and self._due(last) and self.evaluated != last:
            # Under its own iteration, as in a run that was never interrupted.
            storage = self.trainer.storage
            now, storage.iter = storage.iter, last
            self._evaluate(last)
            storage.iter = now

    def after_step(self) -> None:
        if self._due(self.trainer.iter):
            self._evaluate(self.trainer.iter)

    def after_train(self) -> None:
        last = self.trainer.iter - 1
        if self.trainer.iter >= self.trainer.max_iter and 0 <= last != self.evaluated:
            self._evaluate(last)

    def _due(self, iteration: int) -> bool:
        epoch = (iteration + 1) // self._iters_per_epoch
        return self._period > 0 and (iteration + 1) % self._period == 0 and epoch > self._eval_start

    def _evaluate(self, iteration: int) -> None:
        if hasattr(self.trainer, "before_evaluation"):
            self.trainer.before_evaluation()
        epoch = (iteration + 1) // self._iters_per_epoch
        comm.synchronize()
        with isolated_rng():
            runs_here = self._multi_gpu_eval or comm.is_main_process()
            results = self._function(epoch) if runs_here else None
        comm.synchronize()
        metrics = flatten_metrics(results, self.stage)
        self.evaluated, self.ran = iteration, True
        self.metrics = {f"{self.stage}/{name}": value for name, value in metrics.items()}
        for name, value in self.metrics.items():
            self.trainer.storage.put_scalar(name, value, smoothing_hint=False)
        log_metrics(self.stage, epoch, metrics)

    def state_dict(self) -> dict[str, Any]:
        return {"stage": self.stage, "evaluated": self.evaluated, "metrics": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Another choice of DATASETS.VAL and .TEST gives the hooks other places.
        if state_dict["stage"] == self.stage:
            self.evaluated = state_dict["evaluated"]
            self.metrics = dict(state_dict["metrics"])


def flatten_metrics(results: Mapping[str, Any] | None, stage: str) -> dict[str, float]:
    """Nested metrics as one level with ``/`` between the names; None and lists give nothing.

    Raises:
        UserError: A value is no number.
    """
    if not isinstance(results, Mapping):
        return {}
    flat: dict[str, float] = {}
    for name, value in results.items():
        if isinstance(value, Mapping):
            nested = flatten_metrics(value, stage)
            flat.update({f"{name}/{inner}": number for inner, number in nested.items()})
            continue
        try:
            flat[str(name)] = float(value)
        except (TypeError, ValueError):
            raise UserError(
                f"The {stage} evaluator returned {name} = {value!r}; eval() must return a dict "
                "of numbers, which may be nested."
            ) from None
    return flat


def log_metrics(stage: str, epoch: int, metrics: Mapping[str, float]) -> None:
    """A banner and a line per metric."""
    if metrics:
        logger.info("%s %s: %d %s", "#" * 30, stage, epoch, "#" * 30)
    for name, value in metrics.items():
        logger.info("%s: %.4f", name, value)
