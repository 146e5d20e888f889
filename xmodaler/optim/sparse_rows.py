"""Adam on embeddings whose gradient has few rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from xmodaler.utils import comm

_BLOCK = 256  # rows of a gradient that are dense at a time
_MEANS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")


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

    _rule: Callable[..., None]
    """The functional form of the optimizer, :func:`torch.optim.adam.adam` or its like."""

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
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for name in _MEANS[: 3 if group["amsgrad"] else 2]:
                state[name] = torch.zeros_like(parameter)
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        ends = [*range(_BLOCK, len(parameter), _BLOCK), len(parameter)]
        bounds = torch.searchsorted(rows, torch.tensor([0, *ends], device=rows.device)).tolist()
        for number, end in enumerate(ends):
            block = slice(number * _BLOCK, end)
            own = slice(*bounds[number : number + 2])
            dense = torch.zeros_like(parameter[block])
            dense[rows[own] - block.start] = values[own]
            means = [[state[name][block]] if name in state else [] for name in _MEANS]
            self._rule(
                [parameter[block]],
                [dense],
                *means,
                [state["step"].clone()],  # which the rule counts up
                fused=group["fused"],
                amsgrad=group["amsgrad"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                maximize=group["maximize"],
            )
        state["step"] += 1


def sparse_word_gradients(model: nn.Module, optimizer: Optimizer, cfg: Any) -> bool:
    """Whether the gradient of a model's word embedding holds only the rows that a batch reads.

    It does where the model says that nothing else reads the embedding, the optimizer takes such
    gradients, and none are exchanged with other processes.
    """
    wanted = getattr(model, "sparse_word_gradients", False) and not cfg.SOLVER.COMPILE
    taken = getattr(optimizer, "takes_sparse_rows", False)
    on_cpu = next(model.parameters()).device.type == "cpu"
    return wanted and taken and on_cpu and comm.get_world_size() == 1


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
