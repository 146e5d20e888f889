"""A model of the zoo with weights from a file."""

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from xmodaler.checkpoint import XmodalerCheckpointer, load_weights
from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError

from .files import get_config
from .layers import adopt_layers

__all__ = ["build_with_weights", "get"]

logger = logging.getLogger(__name__)


def get(
    name: str,
    weights: str | os.PathLike[str],
    device: str = "auto",
    opts: Sequence[Any] = (),
) -> nn.Module:
    """A model with released weights, in evaluation mode.

    ::

        model = model_zoo.get("video_caption/msrvtt/transformer", weights="model_Epoch_50.pth")

    Args:
        name: As in :func:`xmodaler.model_zoo.get_config_file`.
        weights: A checkpoint of X-modaler or of this package, or a safetensors file.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"mps"``.
        opts: ``[KEY, value, ...]`` for the config, for example another vocabulary's size.

    Returns:
        The model. Where the weights have another number of layers than the config, it has theirs.

    Raises:
        UserError: The weights leave a part of the model without values; the message holds the
            report of all differing keys.
    """
    cfg = get_config(name, ["MODEL.DEVICE", device, *opts])
    return build_with_weights(cfg, weights).eval()


def build_with_weights(cfg: CfgNode, weights: str | os.PathLike[str]) -> nn.Module:
    """Build the model of a config and fill all of it from a file.

    Args:
        cfg: A config that is not frozen; numbers of layers that differ from those of the weights
            are set to theirs, with a warning in the log.
        weights: As in :func:`get`.

    Raises:
        UserError: As in :func:`get`.
    """
    from xmodaler.modeling import build_model

    path = os.fspath(weights)
    state_dict = load_weights(path)
    for key, (old, new) in adopt_layers(cfg, state_dict).items():
        logger.warning("%s is %s, but '%s' was trained with %s; taking that", key, old, path, new)
    model = build_model(cfg)
    _CompleteCheckpointer(model, state_dict).load(path, checkpointables=[])
    return model


class _CompleteCheckpointer(XmodalerCheckpointer):
    """Loads what was read already; refuses weights that leave a part at its initial values."""

    def __init__(self, model: nn.Module, state_dict: Mapping[str, Any]) -> None:
        super().__init__(model)
        self._state_dict = state_dict

    def _load_file(self, filename: str) -> dict[str, Any]:
        return {"model": self._state_dict}

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if incompatible.missing_keys or incompatible.incorrect_shapes:
            raise UserError(
                f"the weights do not fit the config: {len(incompatible.missing_keys)} of the "
                f"model's weights are missing and {len(incompatible.incorrect_shapes)} have "
                f"another shape, such as {_first(incompatible)}; is this their config?\n"
                f"{incompatible.table}"
            )
        super()._log_incompatible_keys(incompatible)


def _first(incompatible: Any) -> str:
    if incompatible.missing_keys:
        return f"'{incompatible.missing_keys[0]}'"
    name, *shapes = incompatible.incorrect_shapes[0]
    return f"'{name}' ({' and '.join(str(tuple(shape)) for shape in shapes)})"
