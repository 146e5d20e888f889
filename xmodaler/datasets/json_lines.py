"""Files with one JSON object a line."""

import json
import os
from typing import Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .annotations import Problem


def read_json_lines(path: str | os.PathLike) -> tuple[list[tuple[str, dict]], list[Problem]]:
    """The objects of a file, each with its place for messages.

    Args:
        path: UTF-8 text; empty lines are skipped.

    Returns:
        ``("<file> line <n>", object)`` in the order of the file, and the lines that are no object.

    Raises:
        UserError: The file cannot be read.
    """
    path = expand_path(path)
    name = os.path.basename(path)
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        raise UserError(f"annotation file '{path}' does not exist") from None
    except OSError as error:
        raise UserError(f"annotation file '{path}' cannot be read: {error.strerror}") from None
    found: list[tuple[str, dict[str, Any]]] = []
    problems = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{name} line {number}"
        try:
            record = json.loads(line.decode("utf-8-sig"))
            if not isinstance(record, dict):
                raise ValueError(f"a {type(record).__name__} where an object is expected")
        except (ValueError, RecursionError) as error:
            problems.append(Problem(where, f"not a JSON object: {error}", f"line {number}"))
        else:
            found.append((where, record))
    return found, problems
