"""``CfgNode``: the configuration tree, with safe loading and errors that name file and key."""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import yaml
from fvcore.common.config import CfgNode as _FvcoreCfgNode
from yacs.config import CfgNode as _YacsCfgNode

from xmodaler.utils.errors import UserError, did_you_mean

from .values import (
    ConfigKeyError,
    ConfigTypeError,
    FrozenConfigError,
    check_leaf,
    coerce,
    decode,
    unknown_key,
)
from .yaml_files import BASE_KEY, load_yaml_file, parse_yaml


class CfgNode(_FvcoreCfgNode):
    """A tree of settings with attribute access: ``cfg.MODEL.ENCODER_DIM``.

    It is an fvcore (hence yacs) ``CfgNode``, and nodes of those classes can be merged into it.
    It differs from them in five ways: YAML is always loaded safely; an int is accepted where a
    float is expected; errors are one sentence that names file, line, key and the nearest known
    key; a frozen tree refuses every change, also through lists, files and items; and merging is
    all or nothing.

    Args:
        init_dict: Nested dict to start from.
        key_list: Path of this node from the root, for messages.
        new_allowed: Whether merging may create keys.
    """

    def __init__(
        self,
        init_dict: Mapping[str, Any] | None = None,
        key_list: list[str] | None = None,
        new_allowed: bool = False,
    ) -> None:
        # yacs deep-copies the dict at every level; one copy at the leaves is enough.
        super().__init__({}, key_list, new_allowed)
        path = list(key_list or [])
        for key, value in (init_dict or {}).items():
            if isinstance(value, Mapping):
                value = type(self)(value, [*path, key], new_allowed)
            else:
                check_leaf(value, ".".join([*path, str(key)]))
                value = copy.deepcopy(value)
            self[key] = value

    # -- access -------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(
            f"Config has no key '{name}' here{did_you_mean(name, map(str, self.keys()))}"
        )

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__:
            raise AttributeError(f"'{name}' is internal to CfgNode and cannot be set")
        if isinstance(value, _YacsCfgNode):
            value = value if isinstance(value, CfgNode) else type(self)(value)
        else:
            check_leaf(value, name)
        if not name.startswith("COMPUTED_"):
            self[name] = value
        elif name not in self:
            # Computed values may be inserted once, whether the tree is frozen or not.
            dict.__setitem__(self, name, value)
        elif self[name] != value:
            raise KeyError(f"Computed key '{name}' is already {self[name]!r}, not {value!r}")

    def _refuse_if_frozen(self, what: str) -> None:
        if self.__dict__.get(self.IMMUTABLE, False):
            raise FrozenConfigError(f"Config is frozen, so {what} is refused; defrost() it first")

    def __setitem__(self, key: str, value: Any) -> None:
        self._refuse_if_frozen(f"setting '{key}'")
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._refuse_if_frozen(f"deleting '{key}'")
        super().__delitem__(key)

    def __ior__(self, other: Any) -> "CfgNode":
        self._refuse_if_frozen("updating it")
        return super().__ior__(other)

    def update(self, *args: Any, **kwargs: Any) -> None:
        """As ``dict.update``; refused when frozen."""
        self._refuse_if_frozen("updating it")
        super().update(*args, **kwargs)

    def pop(self, *args: Any) -> Any:
        """As ``dict.pop``; refused when frozen."""
        self._refuse_if_frozen(f"deleting '{args[0]}'")
        return super().pop(*args)

    def popitem(self) -> tuple[str, Any]:
        """As ``dict.popitem``; refused when frozen."""
        self._refuse_if_frozen("deleting a key")
        return super().popitem()

    def clear(self) -> None:
        """As ``dict.clear``; refused when frozen."""
        self._refuse_if_frozen("clearing it")
        super().clear()

    def setdefault(self, key: str, default: Any = None) -> Any:
        """As ``dict.setdefault``; refused when frozen and the key is absent."""
        if key not in self:
            self[key] = default
        return self[key]

    def __deepcopy__(self, memo: dict[int, Any]) -> "CfgNode":
        # Values first, state second: copying a frozen node must not run into its own guard.
        clone = type(self)()
        memo[id(self)] = clone
        for key, value in self.items():
            dict.__setitem__(clone, key, copy.deepcopy(value, memo))
        clone.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return clone

    # -- loading ------------------------------------------------------------------------------

    @classmethod
    def load_yaml_with_base(cls, filename: str, allow_unsafe: bool = False) -> dict[str, Any]:
        """The nested dict of a YAML file, everything it inherits through ``_BASE_`` merged in.

        Args:
            filename: A path or http(s) address.
            allow_unsafe: Accepted for compatibility; tags that construct objects are refused
                whatever it says.

        Raises:
            UserError: The file is missing, malformed, or includes itself.
        """
        del allow_unsafe
        return load_yaml_file(filename).tree

    @classmethod
    def _load_cfg_from_yaml_str(cls, str_obj: str) -> "CfgNode":
        return cls(parse_yaml(str_obj, "text").tree)

    def load_from_file_tmp(self, cfg_filename: str, allow_unsafe: bool = True) -> "CfgNode":
        """A new node that holds only the keys of the file, its values as YAML gives them.

        It is the first of two passes: ``add_config(cfg, tmp)`` reads from it which classes the
        file names, so that their keys exist when the file is merged. Overrides of the command
        line can be merged into it, whether the file has their keys or not.

        Args:
            cfg_filename: A path or http(s) address.
            allow_unsafe: Accepted for compatibility and ignored.
        """
        del allow_unsafe
        loaded = _FileNode(load_yaml_file(cfg_filename).tree, new_allowed=True)
        return self._convert_version(loaded, cfg_filename)

    # -- merging ------------------------------------------------------------------------------

    def merge_from_file(self, cfg_filename: str, allow_unsafe: bool = True) -> None:
        """Merge a YAML file (and its bases) into this tree.

        Args:
            cfg_filename: A path or http(s) address.
            allow_unsafe: Accepted for compatibility; YAML is always loaded safely.

        Raises:
            UserError: The file is missing or malformed, or its VERSION is unknown.
            ConfigKeyError: (a KeyError) the file has a key that the tree has not.
            ConfigTypeError: A value has the wrong type.
        """
        del allow_unsafe
        self._refuse_if_frozen(f"merging '{cfg_filename}'")
        loaded = load_yaml_file(cfg_filename)
        node = self._convert_version(type(self)(loaded.tree), cfg_filename)
        self._merge(node, loaded.origins, f"'{os.fspath(cfg_filename)}'")

    def merge_from_other_cfg(self, cfg_other: Mapping[str, Any]) -> None:
        """Merge another config (of this class, fvcore's, yacs', or a nested dict)."""
        self._refuse_if_frozen("merging another config")
        if BASE_KEY in cfg_other:
            raise UserError(f"{BASE_KEY} can only be used in config files")
        self._merge(cfg_other, {}, "the merged config")

    def merge_from_list(self, cfg_list: Sequence[Any]) -> None:
        """Merge ``[key, value, key, value, ...]``, as a command line gives them.

        String values are read as Python literals (``"3"``, ``"[1, 2]"``, ``"None"``); where the
        key holds a string, a value that is no string literal stays as it was written.
        """
        self._refuse_if_frozen("merging options")
        if len(cfg_list) % 2:
            raise UserError(
                f"Options must be pairs of KEY VALUE, but '{cfg_list[-1]}' has no partner"
            )
        changes: list[tuple[CfgNode, str, Any]] = []
        for full_key, value in zip(cfg_list[0::2], cfg_list[1::2], strict=True):
            if full_key == BASE_KEY:
                raise UserError(f"{BASE_KEY} can only be used in config files")
            if self.key_is_deprecated(full_key):
                continue
            if self.key_is_renamed(full_key):
                self.raise_key_rename_error(full_key)
            where = "the options"
            node, leaf = self._find(str(full_key), where)
            if leaf in node:
                value = self._fit(value, node[leaf], str(full_key), where)
            else:
                value = decode(value)
                check_leaf(value, str(full_key))
            changes.append((node, leaf, value))
        for node, leaf, value in changes:
            node[leaf] = value

    def _find(self, full_key: str, where: str) -> tuple["CfgNode", str]:
        """The node that holds ``full_key`` and the last part of the key."""
        *sections, leaf = full_key.split(".")
        node = self
        for section in sections:
            if section not in node and node.is_new_allowed():
                node[section] = type(self)(new_allowed=True)
            if not isinstance(node.get(section), CfgNode):
                raise unknown_key(self, full_key, where)
            node = node[section]
        if leaf not in node and not node.is_new_allowed():
            raise unknown_key(self, full_key, where)
        return node, leaf

    def _fit(self, value: Any, current: Any, full_key: str, where: str) -> Any:
        """``value`` as the type that the key holds now."""
        return coerce(value, current, full_key, where)

    def _merge(self, other: Mapping[str, Any], origins: Mapping[str, str], source: str) -> None:
        changes: list[tuple[CfgNode, str, Any]] = []
        self._plan_merge(other, self, (), origins, source, changes)
        for node, key, value in changes:
            node[key] = value

    def _plan_merge(
        self,
        other: Mapping[str, Any],
        node: "CfgNode",
        path: tuple[str, ...],
        origins: Mapping[str, str],
        source: str,
        changes: list[tuple["CfgNode", str, Any]],
    ) -> None:
        for key, value in other.items():
            full_key = ".".join((*path, str(key)))
            where = origins.get(full_key, source)
            if key in node:
                if isinstance(node[key], CfgNode) and isinstance(value, Mapping):
                    self._plan_merge(value, node[key], (*path, key), origins, source, changes)
                else:
                    changes.append((node, key, self._fit(value, node[key], full_key, where)))
            elif node.is_new_allowed():
                if isinstance(value, Mapping):
                    value = type(self)(value, [*path, key], new_allowed=True)
                else:
                    value = decode(copy.deepcopy(value))
                changes.append((node, key, value))
            elif self.key_is_deprecated(full_key):
                continue
            elif self.key_is_renamed(full_key):
                self.raise_key_rename_error(full_key)
            else:
                raise unknown_key(self, full_key, where)

    def raise_key_rename_error(self, full_key: str) -> None:
        """Raise the error for a key that was registered as renamed."""
        new_key = self.__dict__[self.RENAMED_KEYS][full_key]
        note = ""
        if isinstance(new_key, tuple):
            new_key, note = new_key[0], f" ({new_key[1]})"
        raise ConfigKeyError(
            f"Config key '{full_key}' was renamed to '{new_key}'{note}; please update the config"
        )

    def _convert_version(self, loaded: "CfgNode", filename: str) -> "CfgNode":
        """Check the VERSION of a loaded file and convert it to the version of this tree."""
        if "VERSION" not in self:
            return loaded
        from .compat import convert_config, guess_version

        version = loaded.get("VERSION", None)
        if version is None:
            version = guess_version(loaded, filename)
        if not isinstance(version, int) or isinstance(version, bool):
            raise ConfigTypeError(f"VERSION in '{filename}' must be an int, not {version!r}")
        if version > self.VERSION:
            raise UserError(
                f"Cannot merge a v{version} config ('{filename}') into a v{self.VERSION} config; "
                "it was written for a newer release"
            )
        if version < self.VERSION:
            loaded = convert_config(loaded, version, self.VERSION, f"'{filename}'")
        return loaded

    # -- output -------------------------------------------------------------------------------

    def dump(self, *args: Any, **kwargs: Any) -> str:
        """The tree as YAML; arguments are those of ``yaml.safe_dump``. Tuples become lists."""
        return yaml.safe_dump(_as_dict(self), *args, **kwargs)


class _FileNode(CfgNode):
    """What a file says. Which types are right is known to the full tree only."""

    def _fit(self, value: Any, current: Any, full_key: str, where: str) -> Any:
        return decode(value)


def _as_dict(node: Mapping[str, Any]) -> dict[str, Any]:
    return {k: _as_dict(v) if isinstance(v, Mapping) else v for k, v in node.items()}
