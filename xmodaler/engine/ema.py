"""An exponential moving average of a model's weights."""

import copy

import torch
from torch import nn

from xmodaler.utils import comm


class ModelEma(nn.Module):
    """A second copy of a model whose weights trail the trained ones.

    After every optimizer step each entry of the state dict follows
    ``ema = decay * ema + (1 - decay) * model``; integer buffers are copied.

    Args:
        model: The model to average; a distributed wrapper is taken off.
        decay: Weight of the past in [0, 1).
        device: Where the copy lives; None means beside the model.
    """

    def __init__(
        self, model: nn.Module, decay: float = 0.9997, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.module = copy.deepcopy(comm.unwrap_model(model))
        self.module.eval().requires_grad_(False)
        self.decay = decay
        self.device = device
        if device is not None:
            self.module.to(device)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average one step towards ``model``."""
        averages, currents = self._float_entries(model)
        if averages:
            torch._foreach_mul_(averages, self.decay)
            torch._foreach_add_(averages, currents, alpha=1.0 - self.decay)

    @torch.no_grad()
    def set(self, model: nn.Module) -> None:
        """Make the average equal to ``model``."""
        for average, current in self._pairs(model):
            average.copy_(current)

    def _float_entries(self, model: nn.Module) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        averages, currents = [], []
        for average, current in self._pairs(model):
            if average.is_floating_point():
                averages.append(average)
                currents.append(current.to(average.device, average.dtype))
            else:
                average.copy_(current)
        return averages, currents

    def _pairs(self, model: nn.Module) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """(average, current) per distinct tensor: a tied weight must not move twice a step."""
        current = comm.unwrap_model(model).state_dict(keep_vars=True)
        seen: set[int] = set()
        pairs = []
        for name, average in self.module.state_dict(keep_vars=True).items():
            if id(average) not in seen:
                seen.add(id(average))
                pairs.append((average, current[name].detach()))
        return pairs
