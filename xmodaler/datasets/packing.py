"""Writing the packed feature file that :mod:`.packed_store` reads and describes."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from xmodaler.utils.errors import UserError

from .annotations import Problem, read_json
from .bad_samples import SampleError
from .feature_store import FolderStore, read_arrays
from .packed_store import ALIGNMENT, MAGIC, PREAMBLE, VERSION

_DTYPES = ("float32", "float16", "uint8")

Record = tuple[str, dict[str, np.ndarray]]


class _Writer:
    """Writes arrays one after the other and remembers where they are."""

    def __init__(self, file: IO[bytes], scale: float | None) -> None:
        self._file = file
        self._scale = scale
        self.ids: list[str] = []
        self._places: dict[str, dict[int, tuple[int, tuple[int, ...]]]] = {}
        self._kinds: dict[str, tuple[str, int]] = {}
        file.write(b"\0" * PREAMBLE.size)

    def write(self, array: np.ndarray) -> int:
        self._file.write(b"\0" * (-self._file.tell() % ALIGNMENT))
        place = self._file.tell()
        self._file.write(np.ascontiguousarray(array).tobytes())
        return place

    def add(self, record_id: str, arrays: dict[str, np.ndarray]) -> None:
        arrays = {
            name: array.astype(array.dtype.newbyteorder("<")) for name, array in arrays.items()
        }
        for name, array in arrays.items():
            kind = (array.dtype.str, array.ndim)
            if self._kinds.get(name, kind) != kind:
                raise SampleError(
                    f"record '{record_id}'",
                    f"'{name}' is {array.ndim}-dimensional {array.dtype}, unlike in the records "
                    f"before ({self._kinds[name][1]}-dimensional {np.dtype(self._kinds[name][0])})",
                )
        for name, array in arrays.items():
            self._kinds[name] = (array.dtype.str, array.ndim)
            places = self._places.setdefault(name, {})
            places[len(self.ids)] = (self.write(array), array.shape)
        self.ids.append(record_id)

    def finish(self) -> None:
        encoded = np.array([record_id.encode("utf-8") for record_id in self.ids])
        order = np.argsort(encoded, kind="stable")
        header: dict[str, Any] = {
            "records": len(self.ids),
            "ids": self.write(encoded[order]),
            "id_dtype": encoded.dtype.str,
            "arrays": {},
        }
        for name, found in self._places.items():
            dtype, dimensions = self._kinds[name]
            places = np.full(len(self.ids), -1, dtype="<i8")
            shapes = np.zeros((len(self.ids), dimensions), dtype="<i8")
            for row, (place, shape) in found.items():
                places[row], shapes[row] = place, shape
            header["arrays"][name] = {
                "dtype": dtype,
                "dimensions": dimensions,
                "scale": self._scale if name == "features" and dtype == "|u1" else None,
                "places": self.write(places[order]),
                "shapes": self.write(shapes[order]),
            }
        text = json.dumps(header).encode("utf-8")
        place = self._file.tell()
        self._file.write(text)
        self._file.seek(0)
        self._file.write(PREAMBLE.pack(MAGIC, VERSION, len(text), place))


def pack(
    records: Iterable[Record],
    out: str | os.PathLike,
    dtype: str | None = None,
    scale: float | None = None,
    max_bad_fraction: float = 0.01,
) -> tuple[int, list[Problem]]:
    """Write records to one file; an existing file is replaced only when all is written.

    Args:
        records: Pairs of an id and its arrays, ``features`` among them. An item may also be a
            :class:`SampleError`: a record that could not be read.
        out: The file.
        dtype: ``float32``, ``float16`` or ``uint8`` for ``features``; None keeps their type.
        scale: The value of one unit of uint8 features. Features that come as uint8 stay as they
            are, unless another dtype is asked for; with dtype uint8 others are divided by it and
            rounded.
        max_bad_fraction: More bad records than this part stop the packing.

    Returns:
        How many records were written, and the bad ones that were left out.

    Raises:
        UserError: No record, too many bad ones, or a dtype and scale that do not go together.
    """
    from xmodaler.utils.atomic import atomic_write

    if dtype is not None and dtype not in _DTYPES:
        raise UserError(f"dtype '{dtype}' is unknown; it is one of {', '.join(_DTYPES)}")
    if scale is not None and not (math.isfinite(scale) and scale > 0):
        raise UserError(f"scale {scale} is impossible; give a positive number")
    if dtype == "uint8" and scale is None:
        raise UserError("uint8 features need a scale: the value of one unit")
    problems: list[Problem] = []
    seen: set[str] = set()
    with atomic_write(out) as file:
        writer = _Writer(file, scale)
        for record in records:
            try:
                if isinstance(record, SampleError):
                    raise record
                record_id, arrays = record
                if record_id in seen:
                    raise SampleError(f"record '{record_id}'", "occurs twice")
                writer.add(record_id, _converted(record_id, arrays, dtype, scale))
                seen.add(record_id)
            except SampleError as error:
                problems.append(Problem(error.record, error.reason, error.record))
        if not writer.ids:
            reason = f"; the first: {problems[0]}" if problems else ""
            raise UserError(f"there is no usable record to pack into '{out}'{reason}")
        if len(problems) > max_bad_fraction * (len(writer.ids) + len(problems)):
            listed = "".join(f"\n  {problem}" for problem in problems[:20])
            raise UserError(
                f"{len(problems)} of {len(writer.ids) + len(problems)} records are bad, more than "
                f"{max_bad_fraction:g}; nothing was written:{listed}"
            )
        writer.finish()
    return len(writer.ids), problems


def _converted(
    record_id: str, arrays: dict[str, np.ndarray], dtype: str | None, scale: float | None
) -> dict[str, np.ndarray]:
    name = f"record '{record_id}'"
    if not record_id or record_id.endswith("\0"):
        raise SampleError(name, "its id is empty or ends with a null byte")
    if "features" not in arrays:
        raise SampleError(name, f"its arrays are {', '.join(arrays)}, none is named 'features'")
    for key, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise SampleError(name, f"'{key}' is of type {array.dtype}, not numbers")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise SampleError(name, f"'{key}' contains NaN or infinity")
    features = arrays["features"]
    if dtype == "uint8" and features.dtype != np.uint8:
        units = np.rint(features / scale)
        if units.min() < 0 or units.max() > 255:
            raise SampleError(
                name, f"features lie outside 0 .. {255 * scale:g}, the range of uint8"
            )
        features = units.astype(np.uint8)
    elif dtype in ("float32", "float16"):
        if features.dtype == np.uint8 and scale is not None:
            features = features * np.float32(scale)
        with np.errstate(over="ignore"):
            features = features.astype(dtype)
        if not np.isfinite(features).all():
            raise SampleError(name, f"features do not fit into {dtype}")
    return {**arrays, "features": features}


def records_of_folder(folder: str | os.PathLike) -> Iterator[Record | SampleError]:
    """The records of a folder of npz/npy files, sorted by id.

    Raises:
        UserError: There is no such folder.
    """
    if not Path(folder).is_dir():
        raise UserError(f"'{folder}' is not a folder of .npz or .npy files")
    store = FolderStore(folder)
    for record_id in store.ids:
        try:
            yield record_id, store.get(record_id)
        except SampleError as error:
            yield error


def records_of_array(array: str, ids: str | os.PathLike) -> Iterator[Record | SampleError]:
    """The records of one array whose rows belong to the images of an annotation file.

    Args:
        array: ``FILE.npz:NAME`` or ``FILE.npy``; (records, regions, D) or (records, D).
        ids: COCO JSON whose ``images`` have ``id`` and ``row``; or a JSON list of ids in the order
            of the rows.

    Raises:
        UserError: The array or the ids cannot be read.
    """
    path, _, name = array.partition(":") if ".npz:" in array else (array, "", "")
    try:
        arrays = read_arrays(path)
    except SampleError as error:
        raise UserError(str(error)) from None
    if name and name not in arrays and not (len(arrays) == 1):
        raise UserError(f"'{path}' has no array '{name}'; it has {', '.join(sorted(arrays))}")
    table = arrays[name] if name in arrays else arrays.get("features")
    if table is None or table.ndim not in (2, 3):
        raise UserError(f"'{array}' is not an array of (records, regions, width) features")
    for record_id, row in _rows_of_ids(ids):
        if row is None or not 0 <= row < len(table):
            yield SampleError(f"record '{record_id}'", f"row {row} is not in 0 .. {len(table) - 1}")
        else:
            yield record_id, {"features": table[row] if table.ndim == 3 else table[row : row + 1]}


def _rows_of_ids(path: str | os.PathLike) -> list[tuple[str, int | None]]:
    content = read_json(path)
    if isinstance(content, list):
        return [(str(record_id), row) for row, record_id in enumerate(content)]
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not all(isinstance(i, dict) and "id" in i for i in images):
        raise UserError(f"'{path}' has neither a list of ids nor COCO 'images' with 'id' and 'row'")
    rows = ((image["id"], image.get("row")) for image in images)
    return [(str(name), row if isinstance(row, int) else None) for name, row in rows]
