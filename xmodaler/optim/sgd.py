"""Stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from xmodaler.config import configurable

from .build import SOLVER_REGISTRY


@SOLVER_REGISTRY.register()
class SGD(torch.optim.SGD):
    """Gradient descent with (Nesterov) momentum (Sutskever et al., 2013): torch's."""

    @configurable
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.1,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        foreach: bool | None = None,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Learning rate.
            momentum: Momentum factor.
            dampening: The gradient enters the momentum with weight `1 - dampening`.
            weight_decay: Factor of the L2 term, added to the gradient.
            nesterov: Look ahead; needs momentum and no dampening.
            foreach: Force (or forbid) torch's multi-tensor step; `None` chooses.
        """
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            dampening=dampening,
            weight_decay=weight_decay,
            nesterov=nesterov,
            foreach=foreach,
        )

    @classmethod
    def from_config(cls, cfg: Any, params: Iterable[Any]) -> dict[str, Any]:
        """Read `SOLVER.{BASE_LR, MOMENTUM, DAMPENING, WEIGHT_DECAY, NESTEROV}`."""
        return {
            "params": params,
            "lr": cfg.SOLVER.BASE_LR,
            "momentum": cfg.SOLVER.MOMENTUM,
            "dampening": cfg.SOLVER.DAMPENING,
            "weight_decay": cfg.SOLVER.WEIGHT_DECAY,
            # The config holds a float here, for files written for X-modaler.
            "nesterov": bool(cfg.SOLVER.NESTEROV),
        }
