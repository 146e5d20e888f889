"""AdamW as BERT's successors were fine-tuned with it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from xmodaler.config import configurable
from xmodaler.utils.errors import UserError

from .build import SOLVER_REGISTRY
from .own_optimizer import OwnOptimizer


@SOLVER_REGISTRY.register()
class FineTunedAdamW(OwnOptimizer):
    """AdamW of early versions of the transformers library (Loshchilov & Hutter, 2019).

    For every parameter `p` with gradient `g` at its step `t`::

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        p <- p - lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)
        p <- p - lr weight_decay p

    In torch's AdamW, eps meets the corrected `v`, and the decay comes first.
    """

    instead_for_sparse = "AdamW"

    @configurable
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Learning rate.
            betas: Decay of the running means of the gradient and of its square.
            eps: Added to the denominator.
            weight_decay: Decay per step, relative to the learning rate.
        """
        valid = lr >= 0 and eps >= 0 and all(0 <= beta < 1 for beta in betas)
        if not valid:
            raise UserError(
                f"FineTunedAdamW: lr {lr}, eps {eps}, betas {tuple(betas)}; lr and eps must be "
                ">= 0 and the betas lie in [0, 1)"
            )
        defaults = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

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

    def new_state(self, parameter: torch.Tensor) -> dict[str, Any]:
        zeros = torch.zeros_like(parameter)
        return {"step": 0, "exp_avg": zeros, "exp_avg_sq": zeros.clone()}

    def update(self, params: list[torch.Tensor], group: dict[str, Any]) -> None:
        b1, b2 = group["betas"]
        grads = [p.grad for p in params]
        means = [self.state[p]["exp_avg"] for p in params]
        squares = [self.state[p]["exp_avg_sq"] for p in params]
        for p in params:
            self.state[p]["step"] += 1
        steps = [self.state[p]["step"] for p in params]
        torch._foreach_mul_(means, b1)
        torch._foreach_add_(means, grads, alpha=1 - b1)
        torch._foreach_mul_(squares, b2)
        torch._foreach_addcmul_(squares, grads, grads, value=1 - b2)
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_add_(denominators, group["eps"])
        sizes = [-group["lr"] * math.sqrt(1 - b2**t) / (1 - b1**t) for t in steps]
        torch._foreach_addcdiv_(params, means, denominators, sizes)
        if group["weight_decay"] > 0:
            torch._foreach_mul_(params, 1 - group["lr"] * group["weight_decay"])
