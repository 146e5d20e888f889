"""Rectified Adam."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from xmodaler.config import configurable

from .build import SOLVER_REGISTRY


@SOLVER_REGISTRY.register()
class RAdam(torch.optim.RAdam):
    r"""RAdam (Liu et al., 2020, algorithm 2) with decoupled weight decay.

    With `N_inf = 2 / (1 - b2) - 1` and `N_t = N_inf - 2 t b2^t / (1 - b2^t)`:

    * first `p <- p - lr * weight_decay * p` (torch's own default adds the L2 term to the gradient);
    * `N_t >= 5`: `p <- p - lr * r_t * m_hat * sqrt(1 - b2^t) / (sqrt(v) + eps)`, where
      `r_t^2 = (N_t - 4)(N_t - 2) N_inf / ((N_inf - 4)(N_inf - 2) N_t)`;
    * otherwise: `p <- p - lr * m_hat`, a plain momentum step, `m_hat = m / (1 - b1^t)`.
    """

    @configurable
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Learning rate.
            betas: Decay of the running means of the gradient and of its square.
            eps: Added to the denominator.
            weight_decay: Decay per step, relative to the learning rate.
            foreach: Force (or forbid) torch's multi-tensor step; `None` chooses.
        """
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            decoupled_weight_decay=True,
            foreach=foreach,
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


@SOLVER_REGISTRY.register()
class PlainRAdam(RAdam):
    """The same update as :class:`RAdam`, under the name that configs of X-modaler may use."""
