"""Adam and AdamW."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.optim.adam import adam
from torch.optim.adamw import adamw

from xmodaler.config import configurable

from .build import SOLVER_REGISTRY
from .fused import FusedLayoutMixin, choose_fused
from .sparse_rows import SparseRowsMixin


def _adam_settings(cfg: Any, params: Iterable[Any]) -> dict[str, Any]:
    return {
        "params": params,
        "lr": cfg.SOLVER.BASE_LR,
        "betas": tuple(cfg.SOLVER.BETAS),
        "eps": cfg.SOLVER.EPS,
        "weight_decay": cfg.SOLVER.WEIGHT_DECAY,
        "amsgrad": cfg.SOLVER.AMSGRAD,
    }


@SOLVER_REGISTRY.register()
class Adam(SparseRowsMixin, FusedLayoutMixin, torch.optim.Adam):
    """Adam (Kingma & Ba, 2015) with L2 regularisation: torch's, fused wherever that is valid."""

    _rule = staticmethod(adam)

    @configurable
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Learning rate.
            betas: Decay of the running means of the gradient and of its square.
            eps: Added to the denominator.
            weight_decay: Factor of the L2 term, added to the gradient.
            amsgrad: Divide by the largest second moment so far (Reddi et al., 2018).
            foreach: Force (or forbid) torch's multi-tensor step; `None` chooses.
            fused: Force (or forbid) torch's fused step; `None` chooses.
        """
        params = list(params)
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            foreach=foreach,
            fused=choose_fused(params, foreach, fused),
        )

    @classmethod
    def from_config(cls, cfg: Any, params: Iterable[Any]) -> dict[str, Any]:
        """Read `SOLVER.{BASE_LR, BETAS, EPS, WEIGHT_DECAY, AMSGRAD}`."""
        return _adam_settings(cfg, params)


@SOLVER_REGISTRY.register()
class AdamW(SparseRowsMixin, FusedLayoutMixin, torch.optim.AdamW):
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019): torch's, fused where valid."""

    _rule = staticmethod(adamw)

    @configurable
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
    ) -> None:
        """Set up the optimizer.

        Args:
            params: Parameters or parameter groups.
            lr: Learning rate.
            betas: Decay of the running means of the gradient and of its square.
            eps: Added to the denominator.
            weight_decay: Decay per step, relative to the learning rate.
            amsgrad: Divide by the largest second moment so far (Reddi et al., 2018).
            foreach: Force (or forbid) torch's multi-tensor step; `None` chooses.
            fused: Force (or forbid) torch's fused step; `None` chooses.
        """
        params = list(params)
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            amsgrad=amsgrad,
            foreach=foreach,
            fused=choose_fused(params, foreach, fused),
        )

    @classmethod
    def from_config(cls, cfg: Any, params: Iterable[Any]) -> dict[str, Any]:
        """Read `SOLVER.{BASE_LR, BETAS, EPS, WEIGHT_DECAY, AMSGRAD}`."""
        return _adam_settings(cfg, params)
