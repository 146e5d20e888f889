"""Adamax."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from xmodaler.config import configurable

from .build import SOLVER_REGISTRY


@SOLVER_REGISTRY.register()
class Adamax(torch.optim.Adamax):
    """Adamax (Kingma & Ba, 2015, section 7.1): torch's, Adam under the infinity norm."""

    @configurable
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Learning rate.
            betas: Decay of the running mean and of the running maximum.
            eps: Added to the absolute gradient.
            weight_decay: Factor of the L2 term, added to the gradient.
            foreach: Force (or forbid) torch's multi-tensor step; `None` chooses.
        """
        super().__init__(
            params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, foreach=foreach
        )

    @classmethod
    def from_config(cls, cfg: Any, params: Iterable[Any]) -> dict[str, Any]:
        """Read `SOLVER.{BASE_LR, BETAS, EPS, WEIGHT_DECAY}`."""
        return {
            "params": params,
            "lr": cfg.SOLVER.BASE_LR,
            "betas": tuple(cfg.SOLVER.BETAS),
            "eps": cfg.SOLVER.EPS,
            "weight_decay": cfg.SOLVER.WEIGHT_DECAY,
        }
