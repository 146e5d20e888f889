"""Training of models that score a picture and a text together."""

from typing import Any

import torch

from xmodaler.datasets import build_dataset_mapper, build_xmodaler_valtest_loader, collate
from xmodaler.evaluation.retrieval import itm_eval

from .build import ENGINE_REGISTRY
from .default_trainer import DefaultTrainer
from .pair_evaluation import evaluate_pairs

__all__ = ["SingleStreamRetrievalTrainer", "inference", "itm_eval"]

_PER_IMAGE = {"Flickr30kDatasetForSingleStreamVal": "Flickr30kDataset"}
"""Data sets whose samples pair a text with all pictures, and those that give each picture once."""


@ENGINE_REGISTRY.register()
class SingleStreamRetrievalTrainer(DefaultTrainer):
    """Trains like :class:`DefaultTrainer` and evaluates by the scores of all pairs.

    The evaluation needs no evaluator. Every picture is read once, and scores are kept while it
    runs, so that it can be killed; see :func:`evaluate_pairs`.
    """

    @classmethod
    def build_val_loader(cls, cfg: Any) -> Any:
        """The loader of all pictures with their texts; None where DATASETS.VAL is ''."""
        return _pool_loader(cfg, "val")

    @classmethod
    def build_test_loader(cls, cfg: Any) -> Any:
        """The loader of all pictures with their texts; None where DATASETS.TEST is ''."""
        return _pool_loader(cfg, "test")

    @classmethod
    def test(
        cls, cfg: Any, model: torch.nn.Module, test_data_loader: Any, evaluator: Any, epoch: int
    ) -> dict[str, Any]:
        """Score all pairs and rank; see :meth:`DefaultTrainer.test`."""
        del evaluator
        return evaluate_pairs(cfg, model, test_data_loader, epoch)


def inference(cfg: Any, model: torch.nn.Module, test_data_loader: Any) -> dict[str, Any]:
    """Recalls of a model; the same as :meth:`SingleStreamRetrievalTrainer.test`."""
    return evaluate_pairs(cfg, model, test_data_loader, -1)


def _pool_loader(cfg: Any, stage: str) -> Any:
    name = cfg.DATASETS[stage.upper()]
    if not name:
        return None
    mapper = build_dataset_mapper(cfg, _PER_IMAGE.get(name, name), stage)
    # Every process needs all pictures; it is the texts that are shared out.
    return build_xmodaler_valtest_loader(
        cfg, mapper, stage=stage, collate_fn=collate, multi_gpu_eval=False
    )
