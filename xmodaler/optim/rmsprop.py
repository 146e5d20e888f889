"""RMSprop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from xmodaler.config import configurable

from .build import SOLVER_REGISTRY


@SOLVER_REGISTRY.register()
class RMSprop(torch.optim.RMSprop):
    """RMSprop (Hinton, 2012), plain or centered (Graves, 2013): torch's."""

    @configurable
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        foreach: bool | None = None,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Learning rate.
            alpha: Decay of the running mean of squared gradients.
            eps: Added to the denominator.
            weight_decay: Factor of the L2 term, added to the gradient.
            momentum: Momentum of the update.
            centered: Divide by the running variance instead of the running mean square.
            foreach: Force (or forbid) torch's multi-tensor step; `None` chooses.
        """
        super().__init__(
            params,
            lr=lr,
            alpha=alpha,
            eps=eps,
            weight_decay=weight_decay,
            momentum=momentum,
            centered=centered,
            foreach=foreach,
        )

    @classmethod
    def from_config(cls, cfg: Any, params: Iterable[Any]) -> dict[str, Any]:
        """Read `SOLVER.{BASE_LR, ALPHA, EPS, WEIGHT_DECAY, MOMENTUM, CENTERED}`."""
        return {
            "params": params,
            "lr": cfg.SOLVER.BASE_LR,
            "alpha": cfg.SOLVER.ALPHA,
            "eps": cfg.SOLVER.EPS,
            "weight_decay": cfg.SOLVER.WEIGHT_DECAY,
            "momentum": cfg.SOLVER.MOMENTUM,
            "centered": cfg.SOLVER.CENTERED,
        }
