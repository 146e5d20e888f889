"""Updating every weight as soon as its gradient is known, so that gradients need no memory."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .clipping import clip_gradients

logger = logging.getLogger(__name__)


class StepInBackward:
    """Takes the optimizer's step parameter by parameter during the backward pass.

    A gradient is complete when everything that used its parameter has been passed, so the
    parameter can be changed at once and the gradient freed. The weights are those of an ordinary
    step, for optimizers that treat every parameter by itself, as all of this package do.

    Args:
        optimizer: Steps from now on with every backward pass.
        clip: Called with the one parameter before its step; None for no clipping.
    """

    def __init__(self, optimizer: Optimizer, clip: Callable[[list[Tensor]], Any] | None) -> None:
        self._optimizer, self._clip = optimizer, clip
        self._handles = [
            parameter.register_post_accumulate_grad_hook(partial(self._update, number))
            for number, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
        ]

    @torch.no_grad()
    def _update(self, group: int, parameter: Tensor) -> None:
        if self._clip is not None:
            self._clip([parameter])
        groups = self._optimizer.param_groups
        self._optimizer.param_groups = [{**groups[group], "params": [parameter]}]
        try:
            self._optimizer.step()
        finally:
            self._optimizer.param_groups = groups
        parameter.grad = None

    def remove(self) -> None:
        """Let backward passes leave their gradients again."""
        for handle in self._handles:
            handle.remove()


def build_step_in_backward(cfg: Any, optimizer: Optimizer) -> StepInBackward | None:
    """What ``SOLVER.STEP_IN_BACKWARD`` asks for; None where it is off.

    With several processes gradients are averaged first, so the setting has no effect there.

    Raises:
        UserError: Another setting needs all gradients together.
    """
    solver = cfg.SOLVER
    if not solver.STEP_IN_BACKWARD:
        return None
    reasons = {
        "SOLVER.GRAD_CLIP with the norm of all gradients": solver.GRAD_CLIP > 0
        and solver.GRAD_CLIP_TYPE == "norm",
        "SOLVER.ACCUM_STEPS above 1": solver.ACCUM_STEPS > 1,
        "SOLVER.PRECISION fp16": solver.PRECISION == "fp16",
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(
                f"SOLVER.STEP_IN_BACKWARD frees gradients one by one, but {reason} needs them "
                "together; switch one of the two off"
            )
    if comm.get_world_size() > 1:
        logger.warning("SOLVER.STEP_IN_BACKWARD has no effect with several processes.")
        return None
    return StepInBackward(optimizer, clip_gradients(cfg))
