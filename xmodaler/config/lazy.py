"""Lazy configs: Python files that describe objects without building them.

Unlike YAML, a ``.py`` config is code that the user wrote and runs. omegaconf is imported by this
module alone.
"""

import builtins
import inspect
import os
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ValidationError

from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError

from .instantiate import target_name
from .values import decode
from .yaml_files import load_yaml_file, read_config_text

__all__ = ["LazyCall", "LazyConfig"]

_FLAGS = {"allow_objects": True}


class LazyCall:
    """Describes a call instead of making it: ``LazyCall(torch.nn.Linear)(in_features=2)``.

    Args:
        target: The callable or its dotted name.
    """

    def __init__(self, target: Callable[..., Any] | str) -> None:
        if not (callable(target) or isinstance(target, str)):
            raise TypeError(f"LazyCall needs a callable or its name, not {target!r}")
        self._target = target

    def __call__(self, **kwargs: Any) -> DictConfig:
        """The description; :func:`~xmodaler.config.instantiate.instantiate` makes the call."""
        try:
            return DictConfig(content={**kwargs, "_target_": self._target}, flags=_FLAGS)
        except ValidationError:
            # omegaconf takes some builtin types for type annotations; their names will do.
            target = target_name(self._target)
            return DictConfig(content={**kwargs, "_target_": target}, flags=_FLAGS)


class LazyConfig:
    """Loading, saving and changing lazy configs."""

    @staticmethod
    def load(filename: str, keys: str | Sequence[str] | None = None) -> Any:
        """Load a ``.py`` config (by running it) or a ``.yaml`` one.

        A Python config may import others relatively (``from .base import model``); names that
        begin with an underscore, and values that are no mappings or lists, are not part of it.

        Args:
            filename: The file.
            keys: A key whose value is wanted, or several.

        Returns:
            A ``DictConfig``; with ``keys`` that value, or a tuple of them.

        Raises:
            UserError: The file does not exist, is of another kind, or lacks a key.
        """
        filename = os.fspath(filename)
        if filename.endswith(".py"):
            content = _run_file(filename)
        elif filename.endswith((".yaml", ".yml")):
            content = load_yaml_file(filename).tree
        else:
            raise UserError(f"Lazy config '{filename}' must be a .py or .yaml file")
        config = OmegaConf.create(content, flags=_FLAGS)
        if keys is None:
            return config
        names = (keys,) if isinstance(keys, str) else tuple(keys)
        for name in names:
            if name not in config:
                raise UserError(f"Lazy config '{filename}' has no '{name}'")
        values = tuple(config[name] for name in names)
        return values[0] if isinstance(keys, str) else values

    @staticmethod
    def load_rel(filename: str, keys: str | Sequence[str] | None = None) -> Any:
        """As :meth:`load`, with the path relative to the file that calls."""
        caller = inspect.stack()[1].frame.f_code.co_filename
        return LazyConfig.load(os.path.join(os.path.dirname(caller), filename), keys)

    @staticmethod
    def save(cfg: Any, filename: str) -> None:
        """Write a config as YAML, its targets by name.

        What YAML cannot hold goes to ``filename + ".pkl"`` by cloudpickle, for people to look
        at; :meth:`load` does not read it.

        Args:
            cfg: The config.
            filename: The YAML file.
        """
        plain = _name_targets(OmegaConf.to_container(cfg, resolve=False))
        try:
            text = yaml.safe_dump(
                plain, default_flow_style=None, allow_unicode=True, sort_keys=False
            )
        except yaml.YAMLError as error:
            try:
                import cloudpickle
            except ImportError:
                raise UserError(f"Lazy config cannot be written as YAML: {error}") from None
            with atomic_write(f"{filename}.pkl") as file:
                cloudpickle.dump(cfg, file)
            return
        with atomic_write(filename, "w") as file:
            file.write(text)

    @staticmethod
    def apply_overrides(cfg: DictConfig, overrides: Sequence[str]) -> DictConfig:
        """Change a config in place by ``key=value`` strings.

        ``a.b=1`` sets, ``+a.b=1`` does too, ``~a.b`` deletes; values are YAML or Python
        literals. An integer part of a key indexes a list.

        Args:
            cfg: The config.
            overrides: The changes.

        Returns:
            The config.

        Raises:
            UserError: A string has no ``=``, or its key leads through a value or past a list.
        """
        for override in overrides:
            if override.startswith("~"):
                _delete(cfg, override[1:].partition("=")[0], override)
                continue
            key, equals, value = override.removeprefix("+").partition("=")
            if not equals or not key:
                raise UserError(f"Override '{override}' must have the form key=value or ~key")
            try:
                OmegaConf.update(cfg, key, _parse_value(value), merge=True, force_add=True)
            except Exception as error:
                raise UserError(f"Override '{override}' does not fit the config: {error}") from None
        return cfg

    @staticmethod
    def to_py(cfg: Any, prefix: str = "cfg.") -> str:
        """The config as Python text, one top-level key a line.

        Args:
            cfg: The config.
            prefix: What stands before each key.
        """
        plain = OmegaConf.to_container(OmegaConf.create(cfg, flags=_FLAGS), resolve=True)
        return "".join(f"{prefix}{key} = {_to_code(value)}\n" for key, value in plain.items())


def _run_file(filename: str, running: tuple[str, ...] = ()) -> dict[str, Any]:
    """The configs that a Python file defines."""
    path = os.path.realpath(filename)
    if path in running:
        raise UserError(f"Lazy config '{filename}' imports itself")
    code = compile(read_config_text(filename), filename, "exec")
    normal_import = builtins.__import__

    def import_config(
        name: str, globals_: Any = None, locals_: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        if level == 0:
            return normal_import(name, globals_, locals_, fromlist, level)
        folder = os.path.dirname(path)
        for _ in range(level - 1):
            folder = os.path.dirname(folder)
        target = os.path.join(folder, *name.split(".")) if name else folder
        if os.path.isdir(target):
            # `from . import base`: the names are files of the folder.
            files = {item: os.path.join(target, f"{item}.py") for item in fromlist}
            values = {
                item: _as_module(item, _run_file(file, (*running, path)))
                for item, file in files.items()
            }
            return _as_module(name, values)
        return _as_module(name, _run_file(f"{target}.py", (*running, path)))

    namespace = {
        "__file__": path,
        "__name__": "xmodaler_lazy_config",
        # Only this file's own import statements are redirected.
        "__builtins__": {**vars(builtins), "__import__": import_config},
    }
    exec(code, namespace)
    return {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and isinstance(value, dict | list | DictConfig | ListConfig)
    }


def _as_module(name: str, values: Mapping[str, Any]) -> types.ModuleType:
    module = types.ModuleType(name or "config")
    for key, value in values.items():
        # Each importer may change what it imports without changing it for the others.
        if isinstance(value, dict | list):
            value = OmegaConf.create(value, flags=_FLAGS)
        setattr(module, key, value)
    return module


def _name_targets(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: target_name(item) if key == "_target_" else _name_targets(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_name_targets(item) for item in value]
    return value


def _parse_value(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    return decode(value)


def _delete(cfg: DictConfig, key: str, override: str) -> None:
    parent_key, _, leaf = key.rpartition(".")
    parent = OmegaConf.select(cfg, parent_key) if parent_key else cfg
    if not isinstance(parent, DictConfig) or leaf not in parent:
        raise UserError(f"Override '{override}' names a key that the config does not have")
    del parent[leaf]


def _to_code(value: Any) -> str:
    if isinstance(value, dict):
        inner = {key: _to_code(item) for key, item in value.items() if key != "_target_"}
        if "_target_" in value:
            arguments = ", ".join(f"{key}={code}" for key, code in inner.items())
            return f"{target_name(value['_target_'])}({arguments})"
        return "{" + ", ".join(f"{key!r}: {code}" for key, code in inner.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_to_code(item) for item in value) + "]"
    return repr(value)
