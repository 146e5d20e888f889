"""Configs as a whole: the default one, one loaded from a file, the one that a process shares."""

from collections.abc import Callable, Sequence
from typing import Any

from .config import CfgNode
from .ranges import check_ranges

global_cfg = CfgNode()


def get_cfg() -> CfgNode:
    """A fresh copy of the default configuration."""
    from .defaults import _C

    return _C.clone()


def load_config(
    config_file: str = "",
    overrides: Sequence[Any] = (),
    add_config: Callable[[CfgNode, CfgNode], None] | None = None,
) -> CfgNode:
    """The config of a run: defaults, then a file, then overrides.

    The classes that the file or the overrides name get to add their keys before anything is
    merged, so that overrides can also exchange a class.

    Args:
        config_file: A YAML file; '' for the defaults alone.
        overrides: ``[key, value, key, value, ...]``.
        add_config: ``xmodaler.modeling.add_config``, or None where no model is meant. It is not
            called when neither the file nor the overrides name an architecture.

    Returns:
        The config, not frozen.

    Raises:
        UserError: The file or an override is wrong, or a number is out of range.
    """
    cfg = get_cfg()
    named = cfg.load_from_file_tmp(config_file) if config_file else CfgNode(new_allowed=True)
    # Twice: the file may set keys of a class that the overrides exchange for another.
    for changes in ((), overrides) if overrides else ((),):
        named.merge_from_list(changes)
        # A file that serves as a base may name no architecture; building a model asks for it.
        if add_config is not None and named.get("MODEL", cfg.MODEL).get("META_ARCHITECTURE"):
            add_config(cfg, named)
    if config_file:
        cfg.merge_from_file(config_file)
    cfg.merge_from_list(overrides)
    if add_config is not None and overrides and cfg.MODEL.META_ARCHITECTURE:
        _drop_exchanged(cfg, add_config)
    check_ranges(cfg)
    return cfg


def _drop_exchanged(cfg: CfgNode, add_config: Callable[[CfgNode, CfgNode], None]) -> None:
    """Remove the sections of classes that overrides exchanged for others.

    Nobody reads them, and the config that a run saves would not load with them.
    """
    needed = get_cfg()
    add_config(needed, cfg)
    for key in [key for key in cfg.MODEL if key not in needed.MODEL]:
        del cfg.MODEL[key]


def set_global_cfg(cfg: CfgNode) -> None:
    """Make ``global_cfg`` point at the values of ``cfg``.

    The tree is refilled in place, so a module that imported it earlier sees the change. Its
    sections are those of ``cfg`` themselves, not copies.
    """
    global_cfg.clear()
    global_cfg.update(cfg)
