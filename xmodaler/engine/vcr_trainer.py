"""Training on questions and on the reasons for their answers."""

from functools import partial
from typing import Any

import torch

from xmodaler.datasets import (
    build_dataset_mapper,
    build_xmodaler_train_loader,
    build_xmodaler_valtest_loader,
    collate,
)

from .build import ENGINE_REGISTRY
from .choice_evaluation import evaluate_choices
from .default_trainer import DefaultTrainer

TASKS = ("VCR_Q-A", "VCR_QA-R")
"""Choosing the answer to a question; choosing the reason for the right answer."""


@ENGINE_REGISTRY.register()
class VCRTrainer(DefaultTrainer):
    """One model for both tasks of visual commonsense reasoning (Zellers et al., CVPR 2019).

    An iteration is an optimizer step on a batch of questions and answers, then one on a batch of
    answers and reasons; the learning rate is the same for both. An epoch is a pass over the first.
    The losses of the second are shown as ``QA-R/...``. Both tasks are evaluated on the same
    pictures, and together: a question counts for Q -> AR when answer and reason are right.

    A dataset mapper gets the stage as ``"train;VCR_Q-A"`` and the like.
    """

    def run_step(self) -> None:
        """One iteration: a step on a batch of each task."""
        self.batches.reset_timer()
        for prefix, stream in zip(("", "QA-R/"), self.batches, strict=True):
            self.update(partial(self.next_batch, stream), prefix)

    @classmethod
    def build_train_loader(cls, cfg: Any) -> list[Any] | None:
        """The loaders of both tasks; None where DATASETS.TRAIN is ''."""
        mappers = _mappers(cfg, "train")
        if mappers is None:
            return None
        return [build_xmodaler_train_loader(cfg, mapper, collate_fn=collate) for mapper in mappers]

    @classmethod
    def build_val_loader(cls, cfg: Any) -> list[Any] | None:
        """The loaders of both tasks; None where DATASETS.VAL is ''."""
        return _evaluation_loaders(cfg, "val")

    @classmethod
    def build_test_loader(cls, cfg: Any) -> list[Any] | None:
        """The loaders of both tasks; None where DATASETS.TEST is ''."""
        return _evaluation_loaders(cfg, "test")

    @classmethod
    def test(
        cls, cfg: Any, model: torch.nn.Module, test_data_loader: Any, evaluator: Any, epoch: int
    ) -> dict[str, Any]:
        """Choose answers and reasons, and score them together; see :meth:`DefaultTrainer.test`."""
        return evaluate_choices(cfg, model, test_data_loader, evaluator, epoch)


def _mappers(cfg: Any, stage: str) -> list[Any] | None:
    name = cfg.DATASETS[stage.upper()]
    if not name:
        return None
    return [build_dataset_mapper(cfg, name, f"{stage};{task}") for task in TASKS]


def _evaluation_loaders(cfg: Any, stage: str) -> list[Any] | None:
    mappers = _mappers(cfg, stage)
    if mappers is None:
        return None
    return [
        build_xmodaler_valtest_loader(cfg, mapper, stage=stage, collate_fn=collate)
        for mapper in mappers
    ]
