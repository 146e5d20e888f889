"""Building objects from descriptions: mappings that name their class under ``_target_``."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.registry import locate

__all__ = ["dump_dataclass", "instantiate", "target_name"]


def instantiate(cfg: Any) -> Any:
    """Build what a lazy config describes, inner descriptions first.

    Args:
        cfg: A mapping with ``_target_`` (a callable or its dotted name) whose other items are
            keyword arguments; a list of such; or anything else, which is returned as it is.

    Returns:
        The result of calling the target.

    Raises:
        UserError: The target cannot be found, or is no callable.
        TypeError: The target does not accept the arguments; the message names the target.
    """
    if _is_list(cfg):
        return [instantiate(item) for item in cfg]
    if not isinstance(cfg, Mapping) or "_target_" not in cfg:
        return cfg
    arguments = {name: instantiate(value) for name, value in cfg.items() if name != "_target_"}
    target = cfg["_target_"]
    if isinstance(target, str):
        found = locate(target)
        if found is None:
            raise UserError(f"_target_ '{target}' of the lazy config cannot be found")
        target = found
    if not callable(target):
        raise UserError(f"_target_ {target!r} of the lazy config is not callable")
    try:
        return target(**arguments)
    except TypeError as error:
        raise TypeError(f"Cannot instantiate {target_name(target)}: {error}") from error


def dump_dataclass(obj: Any) -> dict[str, Any]:
    """The description of a dataclass instance from which :func:`instantiate` builds it again.

    Args:
        obj: The instance; dataclasses among its fields, also in lists, are described too.
    """
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        raise TypeError(f"dump_dataclass needs an instance of a dataclass, not {obj!r}")
    described: dict[str, Any] = {"_target_": target_name(type(obj))}
    for field in dataclasses.fields(obj):
        value = getattr(obj, field.name)
        if isinstance(value, list | tuple):
            described[field.name] = [_describe(item) for item in value]
        else:
            described[field.name] = _describe(value)
    return described


def target_name(target: Any) -> str:
    """The dotted name by which a callable can be imported; a name is returned as it is."""
    if isinstance(target, str):
        return target
    return f"{target.__module__}.{target.__qualname__}"


def _describe(value: Any) -> Any:
    is_instance = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return dump_dataclass(value) if is_instance else value


def _is_list(cfg: Any) -> bool:
    # omegaconf's ListConfig is a Sequence but no list; the name spares its import.
    return isinstance(cfg, list) or type(cfg).__name__ == "ListConfig"
