"""Training of models that give pictures and texts vectors of their own."""

from typing import Any

import torch

from .build import ENGINE_REGISTRY
from .default_trainer import DefaultTrainer
from .retrieval_evaluation import evaluate_retrieval


@ENGINE_REGISTRY.register()
class RetrievalTrainer(DefaultTrainer):
    """Trains like :class:`DefaultTrainer` and evaluates by ranking vectors in both directions.

    Pictures and texts are encoded once each, shared out among the processes.
    """

    @classmethod
    def test(
        cls, cfg: Any, model: torch.nn.Module, test_data_loader: Any, evaluator: Any, epoch: int
    ) -> dict[str, Any]:
        """Encode, gather and rank; see :meth:`DefaultTrainer.test`."""
        return evaluate_retrieval(cfg, model, test_data_loader, evaluator, epoch)
