"""Adam as BERT was trained with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from xmodaler.config import configurable
from xmodaler.utils.errors import UserError

from .build import SOLVER_REGISTRY
from .own_optimizer import OwnOptimizer


@SOLVER_REGISTRY.register()
class BertAdam(OwnOptimizer):
    """Adam without bias correction, with decoupled decay (Devlin et al., 2019, released code).

    For every parameter `p` with gradient `g`, scaled first so that `|g| <= max_grad_norm`::

        m <- b1 m + (1 - b1) g
        v <- b2 v + (1 - b2) g^2
        p <- p - lr (m / (sqrt(v) + eps) + weight_decay p)

    The states are called `next_m` and `next_v`, the settings of a group `b1`, `b2`, `e`.
    """

    instead_for_sparse = "Adagrad"

    @configurable
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        b1: float = 0.9,
        b2: float = 0.999,
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        max_grad_norm: float = 1.0,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Learning rate.
            b1: Decay of the running mean of the gradient.
            b2: Decay of the running mean of its square.
            eps: Added to the denominator.
            weight_decay: Decay per step, relative to the learning rate.
            max_grad_norm: Largest L2 norm of the gradient of ONE parameter; <= 0 does not clip.
        """
        for name, value, valid in (
            ("lr", lr, lr >= 0),
            ("b1", b1, 0 <= b1 < 1),
            ("b2", b2, 0 <= b2 < 1),
            ("eps", eps, eps >= 0),
        ):
            if not valid:
                raise UserError(
                    f"BertAdam: {name} is {value}; lr and eps must be >= 0, b1 and b2 in [0, 1)."
                )
        defaults = {
            "lr": lr,
            "b1": b1,
            "b2": b2,
            "e": eps,
            "weight_decay": weight_decay,
            "max_grad_norm": max_grad_norm,
        }
        super().__init__(params, defaults)

    @classmethod
    def from_config(cls, cfg: Any, params: Iterable[Any]) -> dict[str, Any]:
        """Read `SOLVER.{BASE_LR, BETAS, WEIGHT_DECAY}`; eps and the clipping norm are fixed."""
        return {
            "params": params,
            "lr": cfg.SOLVER.BASE_LR,
            "b1": cfg.SOLVER.BETAS[0],
            "b2": cfg.SOLVER.BETAS[1],
            "weight_decay": cfg.SOLVER.WEIGHT_DECAY,
        }

    def new_state(self, parameter: torch.Tensor) -> dict[str, Any]:
        return {"next_m": torch.zeros_like(parameter), "next_v": torch.zeros_like(parameter)}

    def update(self, params: list[torch.Tensor], group: dict[str, Any]) -> None:
        grads = [p.grad for p in params]
        means = [self.state[p]["next_m"] for p in params]
        squares = [self.state[p]["next_v"] for p in params]
        if group["max_grad_norm"] > 0:
            norms = torch._foreach_norm(grads)
            scales = [(group["max_grad_norm"] / (n + 1e-6)).clamp(max=1.0) for n in norms]
            torch._foreach_mul_(grads, scales)
        torch._foreach_mul_(means, group["b1"])
        torch._foreach_add_(means, grads, alpha=1 - group["b1"])
        torch._foreach_mul_(squares, group["b2"])
        torch._foreach_addcmul_(squares, grads, grads, value=1 - group["b2"])
        denominators = torch._foreach_sqrt(squares)
        torch._foreach_add_(denominators, group["e"])
        updates = torch._foreach_div(means, denominators)
        if group["weight_decay"] > 0:
            torch._foreach_add_(updates, params, alpha=group["weight_decay"])
        torch._foreach_add_(params, updates, alpha=-group["lr"])
