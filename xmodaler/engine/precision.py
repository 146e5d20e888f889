"""Numeric precision of the training step: fp32, bf16, or fp16 with loss scaling."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from xmodaler.utils.errors import UserError

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def compute_dtype(name: str) -> torch.dtype | None:
    """The autocast dtype of ``SOLVER.PRECISION``, None for full precision.

    Raises:
        UserError: ``name`` is not one of fp32, bf16, fp16.
    """
    if name not in DTYPES:
        raise UserError(f"SOLVER.PRECISION is '{name}', but must be one of {', '.join(DTYPES)}.")
    return DTYPES[name]


def autocast(name: str, device: torch.device) -> AbstractContextManager:
    """The context in which the forward pass runs under ``SOLVER.PRECISION = name``."""
    dtype = compute_dtype(name)
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


class Precision:
    """Autocast and, for fp16, dynamic loss scaling (Micikevicius et al. 2018).

    Weights and the optimizer's state stay in fp32 whatever the setting.

    Args:
        name: ``fp32``, ``bf16`` or ``fp16``.
        device: Where the model is.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = name
        self.device = device
        enabled = compute_dtype(name) is torch.float16
        self.scaler = torch.amp.GradScaler(device.type, enabled=enabled)

    def autocast(self) -> AbstractContextManager:
        """The context of the forward pass and the losses."""
        return autocast(self.name, self.device)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate the gradients of ``loss``, scaled under fp16."""
        self.scaler.scale(loss).backward()

    def step(
        self,
        optimizer: torch.optim.Optimizer,
        clip: Callable[[Iterable[torch.nn.Parameter]], Any] | None = None,
    ) -> None:
        """Unscale, clip, and apply the gradients; fp16 skips a step whose gradients overflowed."""
        if clip is not None:
            self.scaler.unscale_(optimizer)
            clip([p for group in optimizer.param_groups for p in group["params"]])
        self.scaler.step(optimizer)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """State of the loss scale; empty unless fp16."""
        return self.scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the loss scale; a checkpoint of another precision has none."""
        if state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state)
