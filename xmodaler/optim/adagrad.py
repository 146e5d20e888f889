"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from xmodaler.config import configurable

from .build import SOLVER_REGISTRY


@SOLVER_REGISTRY.register()
class Adagrad(torch.optim.Adagrad):
    """Adagrad (Duchi, Hazan & Singer, 2011): torch's."""

    @configurable
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        foreach: bool | None = None,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Learning rate.
            lr_decay: The rate of step n is `lr / (1 + n * lr_decay)`.
            weight_decay: Factor of the L2 term, added to the gradient.
            initial_accumulator_value: Start of the sum of squared gradients.
            eps: Added to the denominator.
            foreach: Force (or forbid) torch's multi-tensor step; `None` chooses.
        """
        super().__init__(
            params,
            lr=lr,
            lr_decay=lr_decay,
            weight_decay=weight_decay,
            initial_accumulator_value=initial_accumulator_value,
            eps=eps,
            foreach=foreach,
        )

    @classmethod
    def from_config(cls, cfg: Any, params: Iterable[Any]) -> dict[str, Any]:
        """Read `SOLVER.{BASE_LR, LR_DECAY, WEIGHT_DECAY, INITIAL_ACCUMULATOR_VALUE, EPS}`."""
        return {
            "params": params,
            "lr": cfg.SOLVER.BASE_LR,
            "lr_decay": cfg.SOLVER.LR_DECAY,
            "weight_decay": cfg.SOLVER.WEIGHT_DECAY,
            "initial_accumulator_value": cfg.SOLVER.INITIAL_ACCUMULATOR_VALUE,
            "eps": cfg.SOLVER.EPS,
        }
