"""When one kernel can update all parameters, and what that kernel relies on."""

from __future__ import annotations

from typing import Any

import torch
from torch.optim import Optimizer

FUSED_DEVICES = ("cpu", "cuda")


def choose_fused(params: list[Any], foreach: bool | None, fused: bool | None) -> bool | None:
    """Decide whether torch should use its fused step.

    The fused step reads and writes every state once, on the CPU too, where torch would
    otherwise go through the parameters one operation at a time.

    Args:
        params: Parameters, `(name, parameter)` pairs, or parameter groups.
        foreach: What the caller asked for.
        fused: What the caller asked for.

    Returns:
        `fused` as given if the caller chose either; else `True` where the fused step is valid
        for every parameter, and `None` (torch's own choice) where it is not.
    """
    if foreach is not None or fused is not None:
        return fused
    flat: list[Any] = []
    for entry in params:
        flat.extend(entry["params"] if isinstance(entry, dict) else [entry])
    tensors = [entry[1] if isinstance(entry, tuple) else entry for entry in flat]
    valid = all(
        torch.is_tensor(t) and t.is_floating_point() and t.device.type in FUSED_DEVICES
        for t in tensors
    )
    return True if valid else None


class FusedLayoutMixin:
    """Keep gradients and states in the memory layout of their parameter.

    The fused CPU step walks through memory and trusts that all tensors of a parameter have equal
    strides. Autograd keeps that promise; gradients set by hand and states saved by a model in
    another memory format may break it, and the result would be silently wrong.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_step_pre_hook(_match_gradients)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state as torch does, then give it the layout of the parameters.

        Raises:
            ValueError: The state belongs to parameters of other shapes, which the fused step
                would read beyond their end; the optimizer is unchanged.
        """
        _check_shapes(self, state_dict)
        super().load_state_dict(state_dict)
        for parameter, state in self.state.items():
            for name, value in state.items():
                if torch.is_tensor(value) and value.shape == parameter.shape:
                    state[name] = _like(value, parameter)


def _check_shapes(optimizer: Optimizer, state_dict: dict[str, Any]) -> None:
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    numbers = [n for group in state_dict["param_groups"] for n in group["params"]]
    # Torch itself compares how many there are.
    for parameter, number in zip(parameters, numbers, strict=False):
        for name, value in state_dict["state"].get(number, {}).items():
            if torch.is_tensor(value) and value.dim() > 0 and value.shape != parameter.shape:
                raise ValueError(
                    f"parameter {number} has shape {tuple(parameter.shape)}, but its {name} "
                    f"{tuple(value.shape)}"
                )


def _match_gradients(optimizer: Optimizer, args: tuple, kwargs: dict) -> None:
    for group in optimizer.param_groups:
        if group.get("fused"):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    aligned = _like(parameter.grad, parameter)
                    if aligned is not parameter.grad:
                        parameter.grad = aligned


def _like(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    if value.layout != torch.strided or value.stride() == parameter.stride():
        return value
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value)
