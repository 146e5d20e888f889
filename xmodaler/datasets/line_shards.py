"""Records of large data sets, one JSON object a line, in many files near or far.

Files are indexed by where their lines begin and end; a line is read and parsed when its sample is
asked for. So they are ordinary map-style data: every line once an epoch for any number of ranks
and workers, in a seeded order, resumable at any batch, and nothing of a file is held in memory.
"""

import glob
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .bad_samples import SampleError

__all__ = ["index_lines", "line_files", "read_line"]

_HIDDEN = ("_", ".")
"""What the names of files begin with that hold no records, such as ``_SUCCESS``."""


def _is_far(path: str) -> bool:
    return "://" in path


def _fsspec() -> Any:
    try:
        import fsspec
    except ImportError:
        raise UserError(
            "data at an address need fsspec: pip install fsspec, with s3fs for s3:// and so on"
        ) from None
    return fsspec


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    with _fsspec().open(path, "rb") if _is_far(path) else open(path, "rb") as file:
        yield file


def line_files(pattern: str) -> list[str]:
    """The files of a file, a folder or a glob, near or at an address that fsspec understands.

    Several of these are joined by commas.

    Raises:
        UserError: There are none.
    """
    path = expand_path(pattern)
    if "," in path and not os.path.exists(path):
        return [file for each in path.split(",") for file in line_files(each.strip())]
    if _is_far(path):
        files = _far_files(path)
    elif os.path.isdir(path):
        files = glob.glob(os.path.join(glob.escape(path), "*"))
        files = [file for file in files if os.path.isfile(file)]
    else:
        files = [path] if os.path.isfile(path) else glob.glob(path)
    files = sorted(file for file in files if not os.path.basename(file).startswith(_HIDDEN))
    if not files:
        raise UserError(f"there is no file '{path}'; a file, a folder of them or a glob is needed")
    return files


def _far_files(path: str) -> list[str]:
    try:
        system, place = _fsspec().core.url_to_fs(path)
        inside = f"{place.rstrip('/')}/*" if system.isdir(place) else place
        found = [file for file in system.glob(inside) if not system.isdir(file)]
        return [system.unstrip_protocol(file) for file in found]
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"'{path}' cannot be reached: {error}") from None


def index_lines(pattern: str) -> list[dict[str, Any]]:
    """Where the records of some files are.

    Args:
        pattern: As for :func:`line_files`.

    Returns:
        ``{lines: file, offset, size, image_id: "<file>:<line>"}`` of every line that is not empty.

    Raises:
        UserError: A file cannot be read, or none holds a line.
    """
    records = []
    for path in line_files(pattern):
        name, offset = os.path.basename(path), 0
        try:
            with _opened(path) as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        place = {"lines": path, "offset": offset, "size": len(line)}
                        records.append({**place, "image_id": f"{name}:{number}"})
                    offset += len(line)
        except OSError as error:
            raise UserError(f"'{path}' cannot be read: {error}") from None
    if not records:
        raise UserError(f"'{pattern}' holds no line")
    return records


def read_line(record: dict[str, Any]) -> dict[str, Any]:
    """The object of a line.

    Raises:
        SampleError: The file is gone or shorter than it was, or the line is no JSON object.
    """
    name = record["image_id"]
    try:
        with _opened(record["lines"]) as file:
            file.seek(record["offset"])
            line = file.read(record["size"])
    except OSError as error:
        raise SampleError(name, f"{record['lines']} cannot be read: {error}") from None
    if len(line) < record["size"]:
        raise SampleError(name, "the file ends within the line")
    try:
        content = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SampleError(name, f"not a JSON object: {error}") from None
    if not isinstance(content, dict):
        raise SampleError(name, f"a {type(content).__name__} where an object is expected")
    return content
