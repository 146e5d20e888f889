"""Finding the configs that come with the package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xmodaler.config import CfgNode, load_config
from xmodaler.model_zoo.entries import ZOO, find_entry, names
from xmodaler.utils.errors import UserError, did_you_mean

from .paths import config_root

__all__ = ["config_root", "get_config", "get_config_file"]


def get_config_file(name: str) -> str:
    """Path of a config.

    Args:
        name: A name of :func:`xmodaler.model_zoo.list`, such as ``"image_caption/updown"``, or a
            path below ``configs/``, with or without ``.yaml``, such as
            ``"image_caption/updown/flickr8k_updown"``.

    Raises:
        UserError: There is no such config.
    """
    root, entry = Path(config_root()), find_entry(name)
    inside = entry.config if entry is not None else name.removeprefix("configs/")
    path = root / inside
    if path.suffix != ".yaml":
        path = path.with_name(f"{path.name}.yaml")
    if path == root / ZOO or ".." in path.parts or not path.is_file():
        raise UserError(
            f"the model zoo has no config '{name}'{did_you_mean(name, names())}; "
            "xmodaler.model_zoo.list() gives all names"
        )
    return str(path)


def get_config(name: str, opts: Sequence[Any] = ()) -> CfgNode:
    """A merged config: defaults, the file with its bases, overrides.

    Args:
        name: As in :func:`get_config_file`.
        opts: ``[KEY, value, ...]``.
    """
    from xmodaler.modeling import add_config

    return load_config(get_config_file(name), opts, add_config)
