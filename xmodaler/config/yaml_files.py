"""Reading YAML config files: safely, with ``_BASE_`` inheritance, remembering every line."""

import os
from typing import Any, NamedTuple

import yaml

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import PathManager, expand_path

from .values import check_leaf

BASE_KEY = "_BASE_"
_MAX_DEPTH = 50


class YamlFile(NamedTuple):
    """What a YAML config file says once its bases are merged in.

    Attributes:
        tree: Nested dict of the values.
        origins: ``"A.B" -> "file.yaml:12"``, the place that gave each key its final value.
    """

    tree: dict[str, Any]
    origins: dict[str, str]


def parse_yaml(text: str, source: str) -> YamlFile:
    """Parse one YAML mapping; no tag can construct anything but plain values.

    Args:
        text: The YAML text.
        source: Name of the text in messages.

    Raises:
        UserError: Malformed YAML, a ``!!python/...`` or unknown tag, a key that is no string, or
            a document that is not a mapping; the message names file and line.
    """
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        tree = None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(_describe(error, source)) from None
    finally:
        loader.dispose()
    if not isinstance(tree, dict):
        found = "nothing" if tree is None else f"a {type(tree).__name__}"
        raise UserError(f"Config {source} holds {found} where a mapping of keys is expected")
    origins: dict[str, str] = {}
    _collect_origins(node, tree, (), source, origins)
    return YamlFile(tree, origins)


def load_yaml_file(filename: str) -> YamlFile:
    """Load a YAML config file with everything it inherits through ``_BASE_``.

    ``_BASE_`` is a file or a list of files, relative to the file that names them; absolute paths,
    ``~`` and http(s) addresses work too. Mappings merge deeply, everything else is replaced, a
    later base wins over an earlier one, and the file itself over its bases.

    Raises:
        UserError: A file is missing, unreadable, malformed or includes itself.
    """
    return _load(os.fspath(filename), ())


def read_config_text(filename: str) -> str:
    """The text of a config file; :class:`UserError` says why it cannot be read."""
    try:
        with PathManager.open(filename, "r", encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"Config file '{filename}' does not exist") from None
    except IsADirectoryError:
        raise UserError(f"Config file '{filename}' is a folder, not a YAML file") from None
    except UnicodeDecodeError:
        raise UserError(f"Config file '{filename}' is not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"Config file '{filename}' cannot be read: {error}") from None


def _load(filename: str, chain: tuple[str, ...]) -> YamlFile:
    filename = expand_path(filename)
    identity = filename if _is_url(filename) else os.path.realpath(filename)
    if identity in chain:
        loop = " -> ".join((*chain[chain.index(identity) :], identity))
        raise UserError(f"Config file '{filename}' includes itself through {BASE_KEY}: {loop}")
    own = parse_yaml(read_config_text(filename), f"'{filename}'")
    merged = YamlFile({}, {})
    for base in _base_names(own, filename):
        base = expand_path(base)
        if not (os.path.isabs(base) or _is_url(base)):
            base = os.path.join(os.path.dirname(filename), base)
        _overlay(_load(base, (*chain, identity)), merged)
    _overlay(own, merged)
    return merged


def _base_names(own: YamlFile, filename: str) -> list[str]:
    value = own.tree.pop(BASE_KEY, [])
    where = own.origins.pop(BASE_KEY, filename)
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{BASE_KEY} in {where} must be a file name or a list of file names")
    return names


def _overlay(upper: YamlFile, lower: YamlFile) -> None:
    """Merge ``upper`` into ``lower`` in place; values of ``upper`` win."""
    _overlay_tree(upper.tree, lower.tree, (), upper.origins)
    lower.origins.update(upper.origins)


def _overlay_tree(
    upper: dict[str, Any], lower: dict[str, Any], path: tuple[str, ...], origins: dict[str, str]
) -> None:
    for key, value in upper.items():
        if isinstance(value, dict) and key in lower:
            full_key = ".".join((*path, key))
            if not isinstance(lower[key], dict):
                raise UserError(
                    f"Config key '{full_key}' in {origins.get(full_key, 'the file')} is a section, "
                    f"but its base gives it the value {lower[key]!r}"
                )
            _overlay_tree(value, lower[key], (*path, key), origins)
        else:
            lower[key] = value


def _collect_origins(
    node: yaml.MappingNode,
    tree: dict[str, Any],
    path: tuple[str, ...],
    source: str,
    origins: dict[str, str],
) -> None:
    """Note the line of every key, and refuse keys and values that no config can have."""
    if len(path) > _MAX_DEPTH:
        raise UserError(f"Config {source} is nested too deeply, or a section contains itself")
    for key_node, value_node in node.value:
        if key_node.tag != "tag:yaml.org,2002:str":
            line = key_node.start_mark.line + 1
            raise UserError(
                f"Config key '{key_node.value}' in {source}, line {line}, must be a word, "
                "such as MODEL"
            )
        key_path = (*path, key_node.value)
        full_key = ".".join(key_path)
        origins[full_key] = f"{source}, line {key_node.start_mark.line + 1}"
        value = tree[key_node.value]
        if isinstance(value, dict):
            _collect_origins(value_node, value, key_path, source, origins)
        else:
            check_leaf(value, full_key, origins[full_key])


def _describe(error: Exception, source: str) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f", line {mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    if isinstance(error, yaml.constructor.ConstructorError):
        return f"Config {source}{line} uses a tag that is not allowed ({problem})"
    return f"Config {source}{line} is not valid YAML: {problem}"


def _is_url(filename: str) -> bool:
    return filename.startswith(("http://", "https://"))
