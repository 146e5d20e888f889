"""Files by path or address: one path manager for the whole package."""

import os
import re

from iopath.common.file_io import HTTPURLHandler, OneDrivePathHandler, PathHandler
from iopath.common.file_io import PathManager as _PathManager

__all__ = ["PathHandler", "PathManager", "expand_path"]

PathManager = _PathManager()
PathManager.register_handler(HTTPURLHandler())
PathManager.register_handler(OneDrivePathHandler())

_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::-([^}]*))?\})")


def expand_path(path: str | os.PathLike[str]) -> str:
    """A path of a config with ``~`` and environment variables replaced.

    ``~``, ``$NAME``, ``${NAME}`` and ``${NAME:-default}`` are understood; a variable that is not
    set and has no default is left as it was written.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        default = match[0] if match[3] is None else match[3]
        return os.environ.get(name) or default

    return os.path.expanduser(_VARIABLE.sub(value, os.fspath(path)))
