"""Values of a configuration: which types they may have, how text becomes one, what goes wrong."""

import copy
import warnings
from ast import literal_eval
from collections.abc import Mapping
from typing import Any

from xmodaler.utils.errors import UserError, nearest

LEAF_TYPES = (tuple, list, str, int, float, bool, type(None))
# Keys whose default is a float although they are switches; configs may say True or False.
FLOAT_SWITCHES = frozenset({"SOLVER.NESTEROV"})


class ConfigKeyError(UserError, KeyError):
    """A key that the configuration does not know."""


class ConfigTypeError(UserError, TypeError):
    """A value of another type than the key's default."""


class FrozenConfigError(UserError, AttributeError):
    """An attempt to change a frozen configuration."""


def check_leaf(value: Any, full_key: str, where: str = "") -> None:
    """Raise a ConfigTypeError unless ``value`` has a type that a key may hold."""
    if type(value) not in LEAF_TYPES:
        place = f" in {where}" if where else ""
        names = ", ".join(kind.__name__ for kind in LEAF_TYPES)
        raise ConfigTypeError(
            f"Config key '{full_key}'{place} cannot hold a {type(value).__name__}; it may be "
            f"one of {names}"
        )


def decode(value: Any) -> Any:
    """A string read as a Python literal where it is one of a valid type; anything else as is."""
    if not isinstance(value, str):
        return value
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            decoded = literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return value
    return decoded if type(decoded) in LEAF_TYPES else value


def coerce(value: Any, current: Any, full_key: str, where: str) -> Any:
    """``value`` as the type of ``current``, or a ConfigTypeError."""
    raw, value = value, decode(copy.deepcopy(value))
    expected, given = type(current), type(value)
    if isinstance(current, Mapping) or isinstance(value, Mapping):
        expected_name = "a section of keys" if isinstance(current, Mapping) else expected.__name__
        given_name = "a section of keys" if isinstance(value, Mapping) else given.__name__
        raise _wrong_type(full_key, where, expected_name, given_name, raw)
    check_leaf(value, full_key, where)
    if expected is str and isinstance(raw, str) and value is not None:
        return value if given is str else raw
    if given is expected or value is None or current is None:
        return value
    if expected is float and (given is int or (given is bool and full_key in FLOAT_SWITCHES)):
        return float(value)
    if expected is float and given is str and value.lower().lstrip("+-") in ("inf", "nan"):
        return float(value)
    if {expected, given} == {list, tuple}:
        return expected(value)
    raise _wrong_type(full_key, where, expected.__name__, given.__name__, raw)


def _wrong_type(
    full_key: str, where: str, expected: str, given: str, value: Any
) -> ConfigTypeError:
    return ConfigTypeError(
        f"Type mismatch for config key '{full_key}' in {where}: expected {expected}, "
        f"got {given} ({value!r})"
    )


def known_keys(node: Mapping[str, Any], path: tuple[str, ...] = ()) -> list[str]:
    """Every key of a tree, sections included, as dotted names."""
    keys = []
    for key, value in node.items():
        keys.append(".".join((*path, str(key))))
        if isinstance(value, Mapping):
            keys.extend(known_keys(value, (*path, str(key))))
    return keys


def unknown_key(root: Mapping[str, Any], full_key: str, where: str) -> ConfigKeyError:
    """The error for a key that ``root`` does not have; it names the nearest one that it has."""
    match = _nearest_key(full_key, known_keys(root))
    hint = f"; did you mean '{match}'?" if match is not None else ""
    if match is None and full_key.startswith("MODEL."):
        hint = "; none of the classes that add_config was given creates it"
    return ConfigKeyError(f"Non-existent config key '{full_key}' in {where}{hint}")


def _nearest_key(full_key: str, known: list[str]) -> str | None:
    section, _, word = full_key.rpartition(".")
    # The right word in the wrong section is likelier than another word, and a misspelt word
    # than a misspelt path: of long paths, almost all are "similar".
    same_word = [key for key in known if key.rpartition(".")[2] == word]
    if same_word:
        return nearest(full_key, same_word, cutoff=0.0)
    siblings = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == section}
    sibling = nearest(word, siblings)
    return siblings[sibling] if sibling is not None else nearest(full_key, known, cutoff=0.8)
