"""Parameter groups by the names of parameters, as recipes of large models state them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import nn

from xmodaler.utils.errors import UserError

__all__ = ["named_optimizer_params", "read_rates"]


def read_rates(rates: Sequence[Any]) -> list[tuple[str, float]]:
    """`SOLVER.RATES` as pairs.

    Raises:
        UserError: An entry is no pair of a name and a learning rate.
    """
    pairs = []
    for entry in rates:
        try:
            part, rate = entry
            pairs.append((str(part), float(rate)))
        except (TypeError, ValueError):
            raise UserError(
                f"SOLVER.RATES holds {entry!r}; every entry is a pair of a part of a parameter's "
                "name and a learning rate, such as [visual_embed.tower., 2e-5]"
            ) from None
    return pairs


def named_optimizer_params(
    parameters: Iterable[tuple[str, nn.Parameter]],
    base_lr: float,
    weight_decay: float,
    no_decay: Sequence[str] = (),
    rates: Sequence[tuple[str, float]] = (),
    fresh: Sequence[str] = (),
    fresh_factor: float = 1.0,
) -> list[dict[str, Any]]:
    """Sort trainable parameters into groups of equal settings by parts of their names.

    * The first of `rates` whose part occurs in the name gives the learning rate; else it is
      ``base_lr``, times `fresh_factor` for parameters that a part of `fresh` names.
    * Names in which a part of `no_decay` occurs are not decayed.

    Args:
        parameters: Names and parameters; shared ones count once, frozen ones not at all.
        base_lr: Learning rate of what nothing else names.
        weight_decay: Decay of what `no_decay` does not name.
        no_decay: Parts of names.
        rates: Parts of names with their learning rates.
        fresh: Parts of names of parameters that start at random.
        fresh_factor: Factor on their learning rate.

    Returns:
        Groups ``{"params": [...], "lr": ..., "weight_decay": ...}`` in the order of their first
        parameters.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    seen: set[nn.Parameter] = set()
    for name, parameter in parameters:
        if not parameter.requires_grad or parameter in seen:
            continue
        seen.add(parameter)
        is_fresh = any(part in name for part in fresh)
        otherwise = base_lr * fresh_factor if is_fresh else base_lr
        rate = next((rate for part, rate in rates if part in name), otherwise)
        decay = 0.0 if any(part in name for part in no_decay) else weight_decay
        group = {"params": [], "lr": rate, "weight_decay": decay}
        groups.setdefault((rate, decay), group)["params"].append(parameter)
    return list(groups.values())
