"""Adam on embeddings whose gradient has few rows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

_BLOCK = 256  # rows; a block and its states stay in the cache


class SparseRowsMixin:
    """Let a sparse gradient mean what the dense one would.

    A batch touches few rows of a word embedding, while its dense gradient is as large as the
    embedding. With ``F.embedding(..., sparse=True)`` the gradient holds those rows alone. All rows
    are updated nevertheless, block by block, exactly as if the others had a gradient of zeros:
    their running means decay and move them, and weight decay shrinks them. (`torch.optim.
    SparseAdam` leaves such rows alone, which is another optimizer.)
    """

    takes_sparse_rows = True
    """Whether gradients of embeddings may be sparse."""

    _decouples_weight_decay = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sparse: list[tuple[dict[str, Any], torch.nn.Parameter, Tensor]] = []
        self.register_step_pre_hook(_take_sparse)
        self.register_step_post_hook(_step_sparse)

    @torch.no_grad()
    def step_rows(
        self, group: dict[str, Any], parameter: torch.nn.Parameter, gradient: Tensor
    ) -> None:
        """Update one parameter.

        Args:
            group: Its group.
            parameter: (rows, ...).
            gradient: Sparse along the rows.
        """
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32)
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
            if group["amsgrad"]:
                state["max_exp_avg_sq"] = torch.zeros_like(parameter)
        state["step"] += 1
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        starts = range(0, len(parameter), _BLOCK)
        bounds = torch.searchsorted(rows, torch.tensor([*starts, len(parameter)])).tolist()
        for number, start in enumerate(starts):
            block = slice(start, start + _BLOCK)
            low, high = bounds[number : number + 2]
            own = {key: value[block] for key, value in state.items() if key != "step"}
            self._step_block(
                group,
                int(state["step"]),
                parameter[block],
                own,
                rows[low:high] - start,
                values[low:high],
            )

    def _step_block(
        self,
        group: dict[str, Any],
        step: int,
        weight: Tensor,
        state: dict[str, Tensor],
        rows: Tensor,
        values: Tensor,
    ) -> None:
        (beta1, beta2), rate, decay = group["betas"], group["lr"], group["weight_decay"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        if decay and self._decouples_weight_decay:
            weight.mul_(1 - rate * decay)
        if decay and not self._decouples_weight_decay:
            values = (weight * decay).index_add_(0, rows, values)
            rows = torch.arange(len(weight))
        mean.mul_(beta1).index_add_(0, rows, values, alpha=1 - beta1)
        square.mul_(beta2).index_add_(0, rows, values.square(), alpha=1 - beta2)
        if group["amsgrad"]:
            torch.maximum(state["max_exp_avg_sq"], square, out=state["max_exp_avg_sq"])
            square = state["max_exp_avg_sq"]
        scale = math.sqrt(1 - beta2**step)
        denominator = square.sqrt().div_(scale).add_(group["eps"])
        weight.addcdiv_(mean, denominator, value=-rate / (1 - beta1**step))


def _take_sparse(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
    """Before torch's own step, which refuses sparse gradients."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if parameter.grad is not None and parameter.grad.is_sparse:
                optimizer._sparse.append((group, parameter, parameter.grad))
                parameter.grad = None


def _step_sparse(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
    """After it."""
    for group, parameter, gradient in optimizer._sparse:
        optimizer.step_rows(group, parameter, gradient)
        parameter.grad = gradient
    optimizer._sparse.clear()
