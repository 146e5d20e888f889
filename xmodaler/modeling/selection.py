"""Which class a config names for a stage, and what that class adds to the config."""

from typing import Any

from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import Registry


def chosen_name(cfg: CfgNode, tmp_cfg: CfgNode | None, key: str) -> str:
    """The value of a dotted key in ``tmp_cfg``, or in ``cfg`` where ``tmp_cfg`` lacks it.

    Args:
        cfg: A full config.
        tmp_cfg: A config that holds only the keys of a file, or None.
        key: For example ``"MODEL.TOKEN_EMBED.NAME"``.
    """
    for source in (tmp_cfg, cfg):
        node: Any = source
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        if node is not None:
            return node
    return ""


def required_name(cfg: CfgNode, tmp_cfg: CfgNode | None, key: str, registry: Registry) -> str:
    """As :func:`chosen_name`, but an empty name is the user's mistake."""
    name = chosen_name(cfg, tmp_cfg, key)
    if not name:
        known = ", ".join(sorted(known for known, _ in registry))
        raise UserError(f"{key} is empty; it must name a registered class, one of {known}")
    return name


def add_class_config(registry: Registry, name: str, cfg: CfgNode) -> None:
    """Let the class of that name create its keys on ``cfg``, if it has any to create."""
    if not name:
        return
    add_config = getattr(registry.get(name), "add_config", None)
    if add_config is not None:
        add_config(cfg)
