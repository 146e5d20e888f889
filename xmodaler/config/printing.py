"""A configuration as text for people."""

from collections.abc import Mapping
from typing import Any

import yaml

from xmodaler.utils.errors import did_you_mean

from .config import CfgNode
from .globals import get_cfg
from .values import ConfigKeyError, known_keys


def describe_config(cfg: CfgNode, key: str = "", only_changes: bool = False) -> str:
    """A config, a part of it, or what it changes, as YAML.

    Args:
        cfg: The config.
        key: A section or value, such as ``MODEL.BERT``; '' for everything.
        only_changes: Whether values that equal the defaults are left out.

    Returns:
        YAML text that a config file could hold.

    Raises:
        ConfigKeyError: The key does not exist.
    """
    tree = yaml.safe_load(cfg.dump())
    if only_changes:
        tree = _changes(tree, yaml.safe_load(get_cfg().dump()))
    if key:
        if key not in known_keys(cfg):
            raise ConfigKeyError(
                f"Non-existent config key '{key}'{did_you_mean(key, known_keys(cfg))}"
            )
        tree = _part(tree, key.split("."))
    return yaml.safe_dump(tree) if tree else ""


def _changes(tree: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for name, value in tree.items():
        default = defaults.get(name)
        if isinstance(value, Mapping):
            value = _changes(value, default if isinstance(default, Mapping) else {})
            if value:
                changed[name] = value
        elif name not in defaults or value != default:
            changed[name] = value
    return changed


def _part(tree: Mapping[str, Any], path: list[str]) -> dict[str, Any]:
    """The tree with nothing but one path left in it; empty where the path was left out."""
    head, *rest = path
    if head not in tree:
        return {}
    if not rest:
        return {head: tree[head]}
    inner = _part(tree[head], rest)
    return {head: inner} if inner else {}
