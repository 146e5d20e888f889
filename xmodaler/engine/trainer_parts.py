"""The parts of a trainer, each built from the config when it is first needed."""

import weakref
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.parallel import DistributedDataParallel

from xmodaler.datasets import build_xmodaler_train_loader, build_xmodaler_valtest_loader, collate
from xmodaler.evaluation import build_evaluation
from xmodaler.losses import build_losses
from xmodaler.lr_scheduler import build_lr_scheduler
from xmodaler.modeling import build_model
from xmodaler.optim import (
    StepInBackward,
    build_optimizer,
    build_step_in_backward,
    clip_gradients,
)
from xmodaler.optim.sparse_rows import sparse_word_gradients
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError
from xmodaler.utils.events import EventWriter

from . import hooks
from .data_stream import BatchStream, BatchStreams, initial_seed, loaders_in
from .ema import ModelEma
from .precision import Precision
from .preemption import PatientWorker
from .train_loop import HookBase, TrainerBase
from .writers import default_writers

if TYPE_CHECKING:
    from xmodaler.config import CfgNode


class TrainerParts(TrainerBase):
    """A trainer's optimizer, data, losses, hooks and so on.

    An evaluation thus reads no training data, and the optimizer is built over the weights as they
    were loaded and bound. A part takes over its state of the resumed run when it is built. Each
    part may also simply be assigned.

    Args:
        cfg: The complete config.
    """

    def __init__(self, cfg: "CfgNode") -> None:
        super().__init__()
        # The base class' plain values give way to the properties below.
        del self._hooks, self.max_iter
        self.cfg = cfg
        self.model = self.build_model(cfg)
        self._resumed: dict[str, Any] = {}
        self._weights_bound = False

    # -- what a subclass may override -------------------------------------------------------

    @classmethod
    def build_model(cls, cfg: "CfgNode") -> torch.nn.Module:
        """The model, on its device, without weights of a checkpoint."""
        return build_model(cfg)

    @classmethod
    def build_optimizer(cls, cfg: "CfgNode", model: torch.nn.Module) -> torch.optim.Optimizer:
        """The optimizer over the trainable parameters of ``model``."""
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(
        cls, cfg: "CfgNode", optimizer: torch.optim.Optimizer, iters_per_epoch: int
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The scheduler; it is stepped after every iteration."""
        return build_lr_scheduler(cfg, optimizer, iters_per_epoch)

    @classmethod
    def build_train_loader(cls, cfg: "CfgNode") -> Any:
        """The loader of training batches; None where DATASETS.TRAIN is ''."""
        return build_xmodaler_train_loader(cfg, collate_fn=collate)

    @classmethod
    def build_val_loader(cls, cfg: "CfgNode") -> Any:
        """The loader of validation batches; None where DATASETS.VAL is ''."""
        return build_xmodaler_valtest_loader(cfg, stage="val", collate_fn=collate)

    @classmethod
    def build_test_loader(cls, cfg: "CfgNode") -> Any:
        """The loader of test batches; None where DATASETS.TEST is ''."""
        return build_xmodaler_valtest_loader(cfg, stage="test", collate_fn=collate)

    @classmethod
    def build_losses(cls, cfg: "CfgNode") -> list[torch.nn.Module]:
        """The losses, whose values are summed."""
        return build_losses(cfg)

    @classmethod
    def build_evaluator(cls, cfg: "CfgNode", stage: str) -> Any:
        """The evaluator of ``val`` or ``test`` results; None where INFERENCE.NAME is ''."""
        annfile = cfg.INFERENCE.VAL_ANNFILE if stage == "val" else cfg.INFERENCE.TEST_ANNFILE
        # Result files are called after the epoch alone. Only an evaluator that can tell stages
        # apart may write those of validation too.
        evaluator = build_evaluation(cfg, annfile, cfg.OUTPUT_DIR if stage == "test" else None)
        if hasattr(evaluator, "result_prefix"):
            evaluator.output_dir = cfg.OUTPUT_DIR
            evaluator.result_prefix = "" if stage == "test" else f"{stage}_"
        return evaluator

    def build_distributed(self, model: torch.nn.Module) -> torch.nn.Module:
        """Wrap the model so that gradients are averaged over the processes."""
        return DistributedDataParallel(
            model,
            device_ids=[self.device.index] if self.device.type == "cuda" else None,
            broadcast_buffers=False,
            find_unused_parameters=self.cfg.SOLVER.FIND_UNUSED_PARAMETERS,
        )

    @staticmethod
    def auto_scale_workers(cfg: "CfgNode", num_workers: int) -> "CfgNode":
        """A place to adapt the config to the number of processes; returns it unchanged."""
        del num_workers
        return cfg

    def build_writers(self) -> list[EventWriter]:
        """Where the scalars of training are written; called on the main process only."""
        return default_writers(self.output_dir, self.max_iter)

    def build_hooks(self) -> list[HookBase | None]:
        """The hooks of this trainer, in the order in which they are called."""
        cfg, epoch = self.cfg, self.iters_per_epoch
        sampling = cfg.SCHEDULED_SAMPLING
        return [
            hooks.IterationTimer(),
            hooks.LRScheduler(),
            hooks.ScheduledSampling(
                start_iter=sampling.START_EPOCH * epoch,
                inc_every_iter=sampling.INC_EVERY_EPOCH * epoch,
                inc_prob=sampling.INC_PROB,
                max_prob=sampling.MAX_PROB,
            ),
            hooks.ModelWeightsManipulating(),
            hooks.PeriodicCheckpointer(
                self.checkpointer,
                cfg.SOLVER.CHECKPOINT_PERIOD * epoch,
                max_to_keep=cfg.SOLVER.MAX_TO_KEEP,
                period_iters=cfg.SOLVER.CHECKPOINT_PERIOD_ITERS,
            ),
            *self._build_eval_hooks("val", cfg.INFERENCE.VAL_EVAL_START),
            *self._build_eval_hooks("test", cfg.INFERENCE.TEST_EVAL_START),
            self._build_best_checkpointer(),
            hooks.PeriodicWriter(self.build_writers(), cfg.SOLVER.WRITE_PERIOD)
            if comm.is_main_process()
            else None,
            hooks.ProgressBar(cfg.SOLVER.WRITE_PERIOD)
            if cfg.SOLVER.PROGRESS_BAR and comm.is_main_process()
            else None,
        ]

    def _build_eval_hooks(self, stage: str, eval_start: int) -> list[HookBase]:
        if PatientWorker.install(getattr(self, f"{stage}_data_loader")) is None:
            return []
        names = [stage, f"{stage}_ema"] if self.cfg.MODEL.USE_EMA else [stage]
        return [
            hooks.EvalHook(
                self.cfg.SOLVER.EVAL_PERIOD,
                eval_start,
                partial(_evaluate_stage, weakref.proxy(self), name),
                self.iters_per_epoch,
                name,
                multi_gpu_eval=True,
            )
            for name in names
        ]

    def _build_best_checkpointer(self) -> HookBase | None:
        metric = self.cfg.SOLVER.BEST_METRIC
        if not metric:
            return None
        return hooks.BestCheckpointer(
            self.output_dir,
            partial(_model_of_stage, weakref.proxy(self), metric.split("/", 1)[0]),
            metric,
            self.cfg.SOLVER.BEST_MODE,
        )

    # -- the parts --------------------------------------------------------------------------

    @property
    def bare_model(self) -> torch.nn.Module:
        """The model without a distributed wrapper."""
        return comm.unwrap_model(self.model)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.bare_model.parameters()).device

    @property
    def output_dir(self) -> str:
        """The folder of the run, ``~`` and variables in its name replaced."""
        return self.checkpointer.save_dir

    @cached_property
    def train_data_loader(self) -> Any:
        loader = self.build_train_loader(self.cfg)
        if loader is None:
            raise UserError(
                "Training needs data, but DATASETS.TRAIN is ''; name a dataset class, or use "
                "--eval-only."
            )
        return loader

    @cached_property
    def val_data_loader(self) -> Any:
        return self.build_val_loader(self.cfg)

    @cached_property
    def test_data_loader(self) -> Any:
        return self.build_test_loader(self.cfg)

    @cached_property
    def val_evaluator(self) -> Any:
        return self.build_evaluator(self.cfg, "val")

    @cached_property
    def test_evaluator(self) -> Any:
        return self.build_evaluator(self.cfg, "test")

    @cached_property
    def losses(self) -> list[torch.nn.Module]:
        return self.build_losses(self.cfg)

    @cached_property
    def iters_per_epoch(self) -> int:
        """Optimizer steps of an epoch; batches that fill no last step are left out."""
        loader, parts = self.train_data_loader, self.cfg.SOLVER.ACCUM_STEPS
        # Of several loaders the first one sets the pace.
        batches = len(loaders_in(loader)[0])
        if parts < 1 or batches < parts:
            raise UserError(
                f"SOLVER.ACCUM_STEPS is {parts}, but must be between 1 and the {batches} batches "
                "of an epoch; DATALOADER.TRAIN_BATCH_SIZE may be larger than the training data."
            )
        return batches // parts

    @cached_property
    def max_iter(self) -> int:
        """Iterations of the whole training: SOLVER.MAX_ITER, or else SOLVER.EPOCH epochs."""
        wanted = self.cfg.SOLVER.MAX_ITER
        return wanted if wanted > 0 else self.cfg.SOLVER.EPOCH * self.iters_per_epoch

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        self._build_solver()
        return self.__dict__["optimizer"]

    @cached_property
    def scheduler(self) -> torch.optim.lr_scheduler.LRScheduler:
        self._build_solver()
        return self.__dict__["scheduler"]

    def _build_solver(self) -> None:
        self.bind_or_init_weights()
        self.optimizer = self.build_optimizer(self.cfg, self.bare_model)
        self.scheduler = self.build_lr_scheduler(self.cfg, self.optimizer, self.iters_per_epoch)
        # Only now: building a scheduler sets the optimizer's learning rates.
        self._restore("optimizer")
        self._restore("scheduler")

    def bind_or_init_weights(self) -> None:
        """Let the model tie or initialise parts of itself, once, before the optimizer is built.

        A model that does so as it loads weights, and knows from them whether to, says so by
        ``binds_at_load``.
        """
        model = self.bare_model
        binds = hasattr(model, "bind_or_init_weights") and not getattr(
            model, "binds_at_load", False
        )
        if binds and not self._weights_bound:
            model.bind_or_init_weights()
        self._weights_bound = True

    def check_evaluation(self) -> None:
        """Notice what an evaluation lacks now and not after an epoch of training."""
        evaluates = False
        for stage in ("val", "test"):
            if getattr(self, f"{stage}_data_loader") is not None:
                evaluates = True
                getattr(self, f"{stage}_evaluator")
        if evaluates and self.cfg.INFERENCE.GENERATION_MODE:
            # Read for the first time, it is checked against the model.
            getattr(getattr(self.bare_model, "beam_searcher", None), "vocab", None)

    @cached_property
    def sparse_word_gradients(self) -> bool:
        """As :func:`xmodaler.optim.sparse_rows.sparse_word_gradients`."""
        return sparse_word_gradients(self.bare_model, self.optimizer, self.cfg)

    @cached_property
    def clip(self) -> Any:
        """Clips the gradients of given parameters; None for no clipping."""
        return clip_gradients(self.cfg)

    @cached_property
    def step_in_backward(self) -> StepInBackward | None:
        """Takes the optimizer's step during the backward pass; None for a step behind it."""
        return build_step_in_backward(self.cfg, self.optimizer)

    @cached_property
    def precision(self) -> Precision:
        self.precision = Precision(self.cfg.SOLVER.PRECISION, self.device)
        return self._restore("precision")

    @cached_property
    def batches(self) -> BatchStream | BatchStreams:
        """The endless stream of training batches; of several loaders, their streams."""
        loaders = loaders_in(PatientWorker.install(self.train_data_loader))
        seed, parts = initial_seed(self.cfg.SEED), self.cfg.SOLVER.ACCUM_STEPS
        if len(loaders) > 1:
            per_epoch = [max(len(each) // parts, 1) * parts for each in loaders]
            pairs = zip(loaders, per_epoch, strict=True)
            self.batches = BatchStreams([BatchStream(each, n, seed) for each, n in pairs])
        else:
            self.batches = BatchStream(loaders[0], self.iters_per_epoch * parts, seed)
        return self._restore("batches")

    @cached_property
    def ema(self) -> ModelEma | None:
        """The moving average of the weights, where MODEL.USE_EMA asks for one."""
        if not self.cfg.MODEL.USE_EMA:
            return None
        self.ema = ModelEma(self.bare_model, self.cfg.MODEL.EMA_DECAY)
        return self._restore("ema")

    @cached_property
    def _hooks(self) -> list[HookBase]:
        """The hooks of :meth:`build_hooks`; those the user registers come after them."""
        self._hooks: list[HookBase] = []
        self.register_hooks(self.build_hooks())
        if "hooks" in self._resumed:
            self.load_hook_states(self._resumed.pop("hooks"))
        return self._hooks

    def _restore(self, name: str) -> Any:
        """Give the part ``name`` its state of the resumed run, if there is one."""
        part = self.__dict__[name]
        state = self._resumed.pop(name, None)
        if state is None:
            return part
        try:
            if name == "optimizer":
                self._check_optimizer_name()
            part.load_state_dict(state)
        except (ValueError, KeyError, RuntimeError, TypeError) as error:
            raise UserError(
                f"The checkpoint's state of the {name} does not fit this run ({error}); to start "
                "anew from its weights alone, name the file in MODEL.WEIGHTS and do not resume."
            ) from error
        return part

    def _check_optimizer_name(self) -> None:
        # An optimizer would load the state of another one and fail at the next step, or worse.
        own = type(self.optimizer).__name__
        saved = self._resumed.get("optimizer_name", own)
        if saved != own:
            raise ValueError(f"it belongs to {saved}, SOLVER.NAME is {self.cfg.SOLVER.NAME}")


def _model_of_stage(trainer: TrainerParts, stage: str) -> torch.nn.Module:
    """The trained model, or its average for a stage such as ``val_ema``."""
    return trainer.ema.module if stage.endswith("_ema") else trainer.model


def _evaluate_stage(trainer: TrainerParts, stage: str, epoch: int) -> dict[str, Any]:
    data = stage.removesuffix("_ema")
    evaluator = getattr(trainer, f"{data}_evaluator")
    if hasattr(evaluator, "result_prefix"):
        evaluator.result_prefix = "" if stage == "test" else f"{stage}_"
    return trainer.test(
        trainer.cfg,
        _model_of_stage(trainer, stage),
        getattr(trainer, f"{data}_data_loader"),
        evaluator,
        epoch,
    )
