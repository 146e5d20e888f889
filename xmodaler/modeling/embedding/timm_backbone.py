"""Vision backbones of the timm library, cut off after one of their feature maps."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.utils.errors import MissingDependencyError, UserError, did_you_mean

_ARGS = "MODEL.TIMM.ARGS"


def build_backbone(
    name: str,
    *,
    pretrained: bool = False,
    weights: str = "",
    out_index: int = -1,
    image_size: int | None = None,
    **arguments: Any,
) -> nn.Module:
    """A timm model cut off after one of its feature maps.

    Args:
        name: A timm model name, with or without a tag.
        pretrained: Whether to fetch the weights of that name from the model hub.
        weights: A local weights file of that model (with or without its classifier).
        out_index: Which feature map; -1 is the last, later layers are dropped.
        image_size: Passed to models whose input size is fixed when they are built.
        **arguments: Further arguments of ``timm.create_model``.

    Raises:
        UserError: timm does not know the name or an argument, or the file does not fit.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            "TimmEmbedding needs the library timm; install it with `pip install timm`"
        ) from error
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise UserError(f"MODEL.TIMM.MODEL_NAME '{name}' is no timm model{hint}")
    fixed_size = timm.get_pretrained_cfg(name) and timm.get_pretrained_cfg(name).fixed_input_size
    if image_size and fixed_size:
        arguments.setdefault("img_size", image_size)
    if weights:
        pretrained = True
        state = _backbone_weights(name, weights, arguments)
        arguments["pretrained_cfg_overlay"] = {"state_dict": state}
    try:
        return timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=(out_index,), **arguments
        )
    except (TypeError, IndexError, AssertionError, RuntimeError) as error:
        # torch lists every tensor that does not fit; the first says enough.
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        source = f"MODEL.TIMM.WEIGHTS '{weights}'" if weights else f"MODEL.TIMM.OUT_INDEX, {_ARGS}"
        raise UserError(f"timm cannot build '{name}' ({reason}); check {source}") from error


def _backbone_weights(name: str, path: str, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a weights file, which must cover the backbone."""
    import timm

    from xmodaler.checkpoint.files import load_weights

    state = dict(load_weights(path))
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    missing = sorted(set(model.state_dict()) - set(state))
    if missing:
        raise UserError(
            f"MODEL.TIMM.WEIGHTS '{path}' holds no weights of '{name}': it lacks {len(missing)} of "
            f"its tensors, {missing[0]} first; give a timm weights file of that model"
        )
    return state


def keyword_args(flat: Sequence[Any]) -> dict[str, Any]:
    """``[KEY, VALUE, ...]`` as a dict.

    Raises:
        UserError: It is no such list.
    """
    keys = list(flat[::2])
    if len(flat) % 2 or not all(isinstance(key, str) for key in keys):
        raise UserError(f"{_ARGS} is {list(flat)}; it must be a flat list [KEY, VALUE, ...]")
    return dict(zip(keys, flat[1::2], strict=True))
