"""From a config and a model to an optimizer with few parameter groups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import Registry

from .clipping import maybe_add_gradient_clipping
from .named_groups import named_optimizer_params, read_rates

__all__ = [
    "SOLVER_REGISTRY",
    "build_optimizer",
    "build_optimizer_params",
    "get_default_optimizer_params",
    "maybe_add_gradient_clipping",
]

# Optimizers that `SOLVER.NAME` can name: classes that take `(cfg, params)`.
SOLVER_REGISTRY = Registry("SOLVER")

NORM_LAYERS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def build_optimizer(cfg: Any, model: nn.Module) -> Optimizer:
    """Build the optimizer named by `SOLVER.NAME` over the trainable parameters of `model`.

    The step is the plain one of the algorithm; clip before it with
    :func:`~xmodaler.optim.clip_gradients`.

    Where `SOLVER.NO_DECAY`, `RATES` or `FRESH` say something, the names of the parameters make
    the groups (:func:`~xmodaler.optim.named_groups.named_optimizer_params`), else their modules
    (:func:`get_default_optimizer_params`).

    Args:
        cfg: The root config; reads `SOLVER`.
        model: The model, already on its device, so that a fused step can be chosen.

    Raises:
        UserError: If every parameter is frozen or a `SOLVER` value is impossible.
    """
    groups = _groups(cfg, model)
    if not groups:
        raise UserError(
            f"{type(model).__name__} has no trainable parameter, so there is nothing to optimize; "
            "unfreeze at least one part of the model."
        )
    return build_optimizer_params(cfg, groups)


def _groups(cfg: Any, model: nn.Module) -> list[dict[str, Any]]:
    solver = cfg.SOLVER
    if solver.NO_DECAY or solver.RATES or solver.FRESH:
        return named_optimizer_params(
            model.named_parameters(),
            base_lr=solver.BASE_LR,
            weight_decay=solver.WEIGHT_DECAY,
            no_decay=solver.NO_DECAY,
            rates=read_rates(solver.RATES),
            fresh=solver.FRESH,
            fresh_factor=solver.FRESH_LR_FACTOR,
        )
    return get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay=solver.WEIGHT_DECAY,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        bias_lr_factor=solver.BIAS_LR_FACTOR,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
    )


def build_optimizer_params(cfg: Any, params: Iterable[Any]) -> Optimizer:
    """Build the optimizer named by `SOLVER.NAME` over given parameters or parameter groups.

    Raises:
        UserError: If the optimizer refuses a `SOLVER` value.
    """
    optimizer_class = SOLVER_REGISTRY.get(cfg.SOLVER.NAME)
    try:
        return optimizer_class(cfg, params)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"SOLVER does not suit the optimizer {cfg.SOLVER.NAME}: {error}") from error


def get_default_optimizer_params(
    model: nn.Module,
    base_lr: float,
    weight_decay: float,
    weight_decay_norm: float,
    bias_lr_factor: float = 1.0,
    weight_decay_bias: float | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """Sort the trainable parameters of a model into groups of equal settings.

    * Of a normalisation layer, weight and bias: ``base_lr``, ``weight_decay_norm``.
    * Otherwise, named exactly ``bias``: ``base_lr * bias_lr_factor``, ``weight_decay_bias``.
    * Otherwise: ``base_lr``, ``weight_decay``.

    Parameters with equal settings share one group, because fused and foreach steps work group
    by group. Groups stand in the order in which the first of their parameters appears, and
    parameters in module order; shared parameters count once, frozen ones not at all.

    Args:
        model: The model to optimize.
        base_lr: Learning rate of every parameter that is not a bias.
        weight_decay: Decay of ordinary weights.
        weight_decay_norm: Decay of the parameters of normalisation layers.
        bias_lr_factor: Factor on `base_lr` for biases.
        weight_decay_bias: Decay of biases; `None` means `weight_decay`.
        overrides: Local parameter name (``"weight"``, ``"embedding"``) to settings that replace or
            extend those of the table.

    Returns:
        Groups ``{"params": [...], "lr": ..., "weight_decay": ..., ...}`` for any torch optimizer.
    """
    if weight_decay_bias is None:
        weight_decay_bias = weight_decay
    overrides = overrides or {}
    groups: dict[tuple, dict[str, Any]] = {}
    seen: set[nn.Parameter] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            settings: dict[str, Any] = {"lr": base_lr, "weight_decay": weight_decay}
            if isinstance(module, NORM_LAYERS):
                settings["weight_decay"] = weight_decay_norm
            elif name == "bias":
                settings["lr"] = base_lr * bias_lr_factor
                settings["weight_decay"] = weight_decay_bias
            settings.update(overrides.get(name, {}))
            key = tuple(sorted((setting, repr(value)) for setting, value in settings.items()))
            groups.setdefault(key, {"params": [], **settings})["params"].append(parameter)
    return list(groups.values())
