"""The trainer that suits most models: one batch, one forward, the sum of the losses, one step."""

import logging
import os
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from xmodaler.checkpoint import XmodalerCheckpointer, rng_state, set_rng_state
from xmodaler.config import kfg
from xmodaler.modeling.stage_keys import SPARSE_GRADIENT
from xmodaler.utils import comm
from xmodaler.utils.logger import setup_logger

from . import hooks
from .build import ENGINE_REGISTRY
from .evaluation import evaluate
from .preemption import StopRequest, TrainingInterrupted
from .step_metrics import StepMetrics
from .trainer_parts import TrainerParts
from .writers import truncate_metrics

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

logger = logging.getLogger(__name__)

Scalars = dict[str, torch.Tensor | float]
# The parts whose state goes into checkpoints.
STATEFUL = ("optimizer", "scheduler", "precision", "batches", "ema")


@ENGINE_REGISTRY.register()
class DefaultTrainer(TrainerParts):
    """Trains and evaluates what a config describes.

    ::

        trainer = DefaultTrainer(cfg)
        trainer.resume_or_load(resume=False)
        metrics = trainer.train()

    A subclass overrides the ``build_*`` method of the part that differs, or
    :meth:`compute_losses`.

    Args:
        cfg: The complete config.

    Attributes:
        model: The model; inside a DistributedDataParallel while several processes train.
        ss_prob: Probability of scheduled sampling, set by a hook.
        checkpointer: Saves and loads; the trainer's own state is its entry ``trainer``.
    """

    def __init__(self, cfg: "CfgNode") -> None:
        if not logging.getLogger("xmodaler").isEnabledFor(logging.INFO):
            setup_logger(distributed_rank=comm.get_rank())
        super().__init__(cfg)
        self.model.train()
        self.checkpointer = XmodalerCheckpointer(
            self.model, cfg.OUTPUT_DIR, trainer=weakref.proxy(self)
        )
        self.ss_prob = 0.0
        self.step_metrics = StepMetrics()
        self._extra_scalars: Scalars = {}
        self._compiled_model: Any = None
        self._rank_rngs: tuple[int, list[dict[str, Any]]] | None = None
        self._stop_request: StopRequest | None = None

    # -- the step ---------------------------------------------------------------------------

    def run_step(self) -> None:
        """One iteration: get a batch, forward, losses, backward, step."""
        self.batches.reset_timer()
        self.update(self.next_batch)

    def update(self, next_batch: Callable[[], dict[str, Any]], prefix: str = "") -> None:
        """Step the optimizer once; an iteration may do so several times.

        Args:
            next_batch: Gives a batch; it is called ``SOLVER.ACCUM_STEPS`` times.
            prefix: Put before the names of the losses where they are shown.
        """
        assert self.model.training, f"{type(self).__name__}: the model was left in eval mode."
        self.optimizer.zero_grad(set_to_none=True)
        losses: Scalars = {}
        for part in range(self.cfg.SOLVER.ACCUM_STEPS):
            for data in self.pieces(next_batch()):
                with self._gradient_sync(part):
                    with self.precision.autocast():
                        part_losses = self.compute_losses(data)
                    self.backward(part_losses)
                self._add_scalars(losses, part_losses)
        self._write_metrics(losses, self.batches.data_time, prefix)
        self.optimizer_step()

    def next_batch(self, stream: Iterator[Any] | None = None) -> dict[str, Any]:
        """The next training batch, collated, on the model's device, with SS_PROB set.

        Args:
            stream: Where it comes from; by default :attr:`batches`.
        """
        data = self.bare_model.preprocess_batch(next(stream or self.batches))
        return {**data, kfg.SS_PROB: self.ss_prob, SPARSE_GRADIENT: self.sparse_word_gradients}

    def pieces(self, data: dict[str, Any]) -> list[dict[str, Any]]:
        """The parts of a batch that have a forward and a backward pass each; here, the whole."""
        return [data]

    def compute_losses(self, data: dict[str, Any]) -> Scalars:
        """Forward a batch and evaluate every loss on the outputs.

        Returns:
            Name -> 0-d tensor. Names that contain ``acc`` are shown but not optimised.
        """
        return self.losses_of(self.forward(data))

    def losses_of(self, outputs: dict[str, Any]) -> Scalars:
        """Every loss on what :meth:`forward` returned."""
        losses: Scalars = {}
        for loss in self.losses:
            losses.update(loss(outputs))
        return losses

    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        """The model's outputs for a training batch, merged with the batch."""
        if self._compiled_model is None:
            return self.model(data)
        # A compiled graph is guarded by the values it sees: ids would have it compiled anew for
        # each batch.
        without_text = {name: value for name, value in data.items() if not _is_text(value)}
        return {**data, **self._compiled_model(without_text)}

    def backward(self, losses: Scalars) -> None:
        """Accumulate the gradients of the mean of the losses over the accumulated batches."""
        self.precision.backward(objective(losses) / self.cfg.SOLVER.ACCUM_STEPS)

    def optimizer_step(self) -> None:
        """Clip, update the weights, and let their average follow."""
        if self.step_in_backward is None:
            self.precision.step(self.optimizer, self.clip)
        if self.ema is not None:
            self.ema.update(self.model)

    def log_scalars(self, **scalars: torch.Tensor | float) -> None:
        """Show values of this step, such as rewards, beside the losses."""
        self._extra_scalars.update(scalars)

    def _gradient_sync(self, part: int) -> AbstractContextManager:
        """Gradients travel between processes only with the last accumulated batch."""
        is_last = part == self.cfg.SOLVER.ACCUM_STEPS - 1
        if is_last or not isinstance(self.model, DistributedDataParallel):
            return nullcontext()
        return self.model.no_sync()

    def _add_scalars(self, total: Scalars, part: Scalars) -> None:
        for name, value in part.items():
            value = value.detach() if isinstance(value, torch.Tensor) else value
            total[name] = total.get(name, 0.0) + value / self.cfg.SOLVER.ACCUM_STEPS

    def _write_metrics(self, loss_dict: Scalars, data_time: float, prefix: str = "") -> None:
        """Store the scalars of a step; :class:`StepMetrics` says when they are read."""
        scalars = {"total_loss": objective(loss_dict), **loss_dict, **self._extra_scalars}
        self._extra_scalars = {}
        self.step_metrics.append(
            self.storage, {prefix + name: value for name, value in scalars.items()}, data_time
        )
        done = self.iter + 1
        # Without a device to wait for, looking at the loss costs nothing.
        alone_on_cpu = self.device.type == "cpu" and comm.get_world_size() == 1
        if alone_on_cpu or done % self.cfg.SOLVER.WRITE_PERIOD == 0 or done == self.max_iter:
            self.step_metrics.flush(self.storage)

    # -- training and testing ---------------------------------------------------------------

    def train(self) -> dict[str, float]:
        """Train from the current iteration to the last one.

        Returns:
            The latest value of every scalar of training and of every evaluation.

        Raises:
            TrainingInterrupted: (a SystemExit) a signal asked to stop; a checkpoint was saved.
        """
        self.prepare_training()
        with StopRequest() as self._stop_request:
            super().train(self.start_iter, self.max_iter)
        if self.stopped_early:
            raise TrainingInterrupted(self._stop_request.signum)
        return self.latest_metrics()

    def prepare_training(self) -> None:
        """Build what training needs and evaluation does not; called by :meth:`train`."""
        self.check_evaluation()
        # The optimizer first, which binds weights; wrapping makes the ranks equal, hence the
        # average of the weights comes after it.
        self._build("optimizer")
        if comm.get_world_size() > 1 and not isinstance(self.model, DistributedDataParallel):
            self.model = self.build_distributed(self.model)
        self.model.train()
        self._compiled_model = torch.compile(self.model) if self.cfg.SOLVER.COMPILE else None
        self._build("ema", "batches", "precision", "losses", "step_in_backward")
        if self.start_iter == 0:
            # A new run replaces the files of an earlier one in the same folder.
            self._forget_metrics_after(-1)
        self._build("_hooks")

    def _build(self, *names: str) -> None:
        for name in names:
            getattr(self, name)

    def before_train(self) -> None:
        super().before_train()
        rngs = self._resumed.pop("rng", None)
        if rngs is None:
            return
        if comm.get_rank() < len(rngs):
            # Last of all, since building parts draws random numbers too.
            set_rng_state(rngs[comm.get_rank()])
        else:
            logger.warning("The checkpoint holds no random state for rank %d.", comm.get_rank())

    def after_train(self) -> None:
        super().after_train()
        evaluated = any(isinstance(hook, hooks.EvalHook) and hook.ran for hook in self._hooks)
        if self.iter >= self.max_iter and (self.max_iter > self.start_iter or evaluated):
            for hook in self._checkpoint_hooks():
                hook.save_final()

    def should_stop(self) -> bool:
        if self._stop_request is None or not self._stop_request.agreed():
            return False
        if self.iter + 1 < self.max_iter:
            for hook in self._checkpoint_hooks():
                hook.save_now()
        return True

    def _checkpoint_hooks(self) -> list[hooks.PeriodicCheckpointer]:
        return [hook for hook in self._hooks if isinstance(hook, hooks.PeriodicCheckpointer)]

    def latest_metrics(self) -> dict[str, float]:
        """The latest scalars of this training and the results of the last evaluations."""
        latest = self.storage.latest() if self.storage is not None else {}
        metrics = {name: float(value) for name, (value, _) in latest.items()}
        for hook in self._hooks:
            if isinstance(hook, hooks.EvalHook):
                metrics.update(hook.metrics)
        return metrics

    @classmethod
    def test(
        cls,
        cfg: "CfgNode",
        model: torch.nn.Module,
        test_data_loader: Any,
        evaluator: Any,
        epoch: int,
    ) -> dict[str, Any]:
        """Evaluate a model; every rank calls it and gets the metrics.

        Args:
            cfg: The config.
            model: The model.
            test_data_loader: Yields this rank's share of the data.
            evaluator: Scores the results; None scores nothing.
            epoch: Number for the names of result files; -1 outside of training.
        """
        return evaluate(cfg, model, test_data_loader, evaluator, epoch)

    # -- saving and resuming ----------------------------------------------------------------

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue the run in OUTPUT_DIR if ``resume`` and there is one; else load weights."""
        resuming = resume and self.checkpointer.has_checkpoint()
        if resume and not resuming:
            logger.info("No checkpoint in '%s' to resume from.", self.cfg.OUTPUT_DIR)
        if resuming:
            # Weights that are tied now are filled from the file, not overwritten afterwards.
            self.bind_or_init_weights()
        self.checkpointer.resume_or_load(self.cfg.MODEL.WEIGHTS, resume=resume)
        if resuming:
            self.start_iter = self.iter + 1
        else:
            self.bind_or_init_weights()
            # The average starts at the loaded weights.
            self.__dict__.pop("ema", None)

    def before_evaluation(self) -> None:
        """Called on every rank before an evaluation during training."""
        self.step_metrics.flush(self.storage)
        # Running statistics are those of each process' own batches; a checkpoint has the first's.
        comm.broadcast_buffers(self.bare_model)
        if self.ema is not None:
            comm.broadcast_buffers(self.ema.module)

    def before_checkpoint(self) -> None:
        """Called on every rank before a checkpoint: weights that became NaN are never saved."""
        self.step_metrics.flush(self.storage)
        self._rank_rngs = (self.iter, comm.gather(rng_state()))

    def state_dict(self) -> dict[str, Any]:
        state = super().state_dict()
        # After training, the iteration is one that was never run.
        state["iteration"] = min(self.iter, self.max_iter - 1)
        gathered = self._rank_rngs is not None and self._rank_rngs[0] == self.iter
        state["rng"] = self._rank_rngs[1] if gathered else [rng_state()]
        state["ss_prob"] = self.ss_prob
        state["optimizer_name"] = type(self.optimizer).__name__
        for name in STATEFUL:
            part = getattr(self, name)
            if part is not None:
                state[name] = part.state_dict()
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.iter = state_dict["iteration"]
        self.ss_prob = state_dict.get("ss_prob", 0.0)
        self._forget_metrics_after(self.iter)
        # Parts that are built later take their states then.
        self._resumed = {name: state_dict[name] for name in state_dict}
        for name in STATEFUL:
            if self.__dict__.get(name) is not None:
                self._restore(name)
        if "_hooks" in self.__dict__:
            self.load_hook_states(self._resumed.pop("hooks", {}))

    def _forget_metrics_after(self, iteration: int) -> None:
        if comm.is_main_process():
            truncate_metrics(os.path.join(self.output_dir, "metrics.json"), iteration)


def objective(losses: Scalars) -> torch.Tensor:
    """The sum of the losses; values whose name contains ``acc`` are no losses."""
    return sum(value for name, value in losses.items() if "acc" not in name)


def _is_text(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return bool(value) and isinstance(value[0], str)
    return isinstance(value, str)
