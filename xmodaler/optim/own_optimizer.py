"""What the optimizers that are written here share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch.optim import Optimizer

from xmodaler.utils.errors import UserError


class OwnOptimizer(Optimizer):
    """The loop over parameters; a subclass says how a few of them are updated together."""

    instead_for_sparse: ClassVar[str]
    """The optimizer to use where gradients are sparse."""

    @abstractmethod
    def new_state(self, parameter: torch.Tensor) -> dict[str, Any]:
        """The state of a parameter before its first update."""

    @abstractmethod
    def update(self, params: list[torch.Tensor], group: dict[str, Any]) -> None:
        """Update parameters that have a dense gradient and a state, in place."""

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        """Update all parameters that have a gradient; returns what `closure` returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if p.grad.is_sparse:
                    raise UserError(
                        f"{type(self).__name__} does not support sparse gradients; use "
                        f"{self.instead_for_sparse}."
                    )
                if not self.state[p]:
                    self.state[p].update(self.new_state(p))
            on_cpu = all(p.device.type == "cpu" for p in params)
            # On the CPU, one parameter at a time keeps the temporaries small and in cache.
            for batch in ([p] for p in params) if on_cpu else [params] if params else []:
                self.update(batch, group)
        return loss
