"""Gradient clipping by value or by global norm, as `SOLVER.GRAD_CLIP*` asks for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim import Optimizer

from xmodaler.utils.errors import UserError

CLIP_TYPES = ("value", "norm")


@dataclass(frozen=True)
class GradientClipper:
    r"""Clip the gradients of some parameters in place.

    `"value"` moves every element into `[-limit, limit]`. `"norm"` scales all gradients together:
    `g <- g * min(1, limit / (n + 1e-6))`, where `n` is the norm of all of them as one vector.

    Args:
        kind: `"value"` or `"norm"`.
        limit: The largest absolute value, or the largest norm.
        norm_type: p of the p-norm; `"value"` does not use it.
    """

    kind: str
    limit: float
    norm_type: float = 2.0

    def __call__(self, params: Iterable[torch.nn.Parameter]) -> torch.Tensor | None:
        """Clip and return the norm before clipping (0-d tensor), or `None` for `"value"`."""
        params = [_with_dense_gradient(parameter) for parameter in params]
        if self.kind == "norm":
            return clip_grad_norm_(params, self.limit, self.norm_type)
        clip_grad_value_(params, self.limit)
        return None


def _with_dense_gradient(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter, or for a sparse gradient a stand-in that has its values as gradient."""
    if parameter.grad is None or not parameter.grad.is_sparse:
        return parameter
    parameter.grad = parameter.grad.coalesce()
    values = parameter.grad.values()
    stand_in = torch.empty_like(values)
    stand_in.grad = values
    return stand_in


def clip_gradients(cfg: Any) -> GradientClipper | None:
    """Return the clipper that the config asks for, or `None` where `SOLVER.GRAD_CLIP <= 0`.

    Raises:
        UserError: If clipping is on and `SOLVER.GRAD_CLIP_TYPE` is no known kind.
    """
    if cfg.SOLVER.GRAD_CLIP <= 0:
        return None
    if cfg.SOLVER.GRAD_CLIP_TYPE not in CLIP_TYPES:
        raise UserError(
            f"SOLVER.GRAD_CLIP_TYPE is {cfg.SOLVER.GRAD_CLIP_TYPE!r}; "
            f"it must be one of {', '.join(map(repr, CLIP_TYPES))}."
        )
    return GradientClipper(
        cfg.SOLVER.GRAD_CLIP_TYPE, float(cfg.SOLVER.GRAD_CLIP), float(cfg.SOLVER.NORM_TYPE)
    )


def maybe_add_gradient_clipping(
    cfg: Any, optimizer: Optimizer | type[Optimizer]
) -> Optimizer | type[Optimizer]:
    """Make an optimizer clip all its gradients at the start of every `step()`.

    Use it in a training loop of one's own; the trainers of this package clip by themselves.

    Args:
        cfg: The root config; see :func:`clip_gradients`.
        optimizer: An optimizer, or a class of optimizers.

    Returns:
        The same optimizer, or a subclass named `<Name>WithGradientClip`; what was given if the
        config does not clip.
    """
    clipper = clip_gradients(cfg)
    if clipper is None:
        return optimizer

    def clip_before_step(stepping: Optimizer, args: tuple, kwargs: dict) -> None:
        clipper(p for group in stepping.param_groups for p in group["params"])

    if isinstance(optimizer, Optimizer):
        optimizer.register_step_pre_hook(clip_before_step)
        return optimizer

    def __init__(self: Optimizer, *args: Any, **kwargs: Any) -> None:
        optimizer.__init__(self, *args, **kwargs)
        self.register_step_pre_hook(clip_before_step)

    return type(f"{optimizer.__name__}WithGradientClip", (optimizer,), {"__init__": __init__})
