"""The files of a data set: always the same bytes for the same content."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xmodaler.utils.atomic import atomic_write

_ZIP_TIME = (2000, 1, 1, 0, 0, 0)


def write_json(path: Path, content: Any) -> None:
    """One JSON value."""
    write_text(path, json.dumps(content, ensure_ascii=False))


def write_lines(path: Path, records: Iterable[Any]) -> None:
    """One JSON value a line."""
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def write_text(path: Path, text: str) -> None:
    """UTF-8 whatever the locale."""
    with atomic_write(os.fspath(path)) as file:
        file.write(text.encode("utf-8"))


def write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """As ``numpy.savez``, but without the time of day in the file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _ZIP_TIME), npy_bytes(array))
    path.write_bytes(buffer.getvalue())


def npy_bytes(array: np.ndarray) -> bytes:
    """The bytes of a ``.npy`` file."""
    content = io.BytesIO()
    np.lib.format.write_array(content, np.asanyarray(array), allow_pickle=False)
    return content.getvalue()
