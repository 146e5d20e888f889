"""Annotation files of tasks: lists of JSON, lines of JSON, several of them, by language."""

import os
import re
from dataclasses import dataclass
from typing import Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from ..annotations import Problem, read_captions, read_json
from ..json_lines import read_json_lines

__all__ = ["TaskFile", "caption_entries", "is_json_lines", "read_task_file", "task_files"]

_NAMED = re.compile(r"\s*([A-Za-z][\w-]*)\s*=(.*)", re.DOTALL)
_LINES = (".jsonl", ".ndjson", ".jsonlines", ".jsonline")


@dataclass(frozen=True)
class TaskFile:
    """One of the files that a setting names.

    Attributes:
        path: Where it is.
        name: What the setting calls it, such as a language; '' for nothing.
    """

    path: str
    name: str = ""


def task_files(setting: str, key: str = "the setting") -> list[TaskFile]:
    """The files that a setting names: one, or several parted by commas.

    Each may be given a name, as in ``en=test_en.json,de=test_de.json``.

    Args:
        setting: What the setting holds.
        key: What it is called in messages.

    Raises:
        UserError: It is empty.
    """
    files = []
    for part in filter(None, (part.strip() for part in setting.split(","))):
        named = _NAMED.fullmatch(part)
        name, path = (named[1], named[2].strip()) if named else ("", part)
        files.append(TaskFile(expand_path(path), name))
    if not files:
        raise UserError(f"{key} is '{setting}'; it names the file or files of the records")
    return files


def read_task_file(path: str) -> tuple[Any, list[Problem]]:
    """The records of a file.

    Args:
        path: A list in JSON, or objects line by line; by its ending or its content.

    Returns:
        ``[("<file>[<n>]" or "<file> line <n>", record), ..]`` and what is wrong with the file; or,
        of a file that holds one object, the object.

    Raises:
        UserError: The file cannot be read, or is empty.
    """
    if is_json_lines(path):
        found, problems = read_json_lines(path)
        if not found and not problems:
            raise UserError(f"'{path}' holds no record")
        return found, problems
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise UserError(f"'{path}' is empty (0 bytes)")
    content = read_json(path)
    if isinstance(content, dict):
        return content, []
    if not isinstance(content, list) or not content:
        what = "an empty list" if content == [] else f"a {type(content).__name__}"
        raise UserError(f"'{path}' holds {what} where a list of records is due")
    name, places, problems = os.path.basename(path), [], []
    for number, record in enumerate(content):
        where = f"{name}[{number}]"
        if isinstance(record, dict):
            places.append((where, record))
        else:
            reason = f"a {type(record).__name__} where an object is expected"
            problems.append(Problem(where, reason, where))
    return places, problems


def is_json_lines(path: str) -> bool:
    """Whether a file has one object a line, by its ending or its content."""
    return path.lower().endswith(_LINES) or _begins_with_line(path)


def _begins_with_line(path: str) -> bool:
    """Whether the first line is a whole object and not the whole file."""
    try:
        with open(path, "rb") as file:
            first = file.readline(1 << 24).strip()
            return first.startswith(b"{") and first.endswith(b"}") and bool(file.read(1))
    except OSError:
        return False


def caption_entries(
    path: str, split: str, keys: tuple[str, str, str]
) -> list[tuple[str, dict[str, Any]]]:
    """Places and entries of a file of captions in the layout of COCO or Karpathy.

    Args:
        path: The file.
        split: Take pictures of this split alone; '' for all.
        keys: What an entry calls the file of the picture, its captions and its id.
    """
    return [
        (
            picture.where,
            dict(zip(keys, (picture.file_name, picture.captions, picture.image_id), strict=True)),
        )
        for picture in read_captions(path, split)[0]
    ]
