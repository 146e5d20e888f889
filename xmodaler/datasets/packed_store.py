"""Reading one memory-mapped file for the features of a whole data set.

Layout (little endian):

======================  =======================================================================
8 bytes                 ``XMFEATS\\0``
uint32                  version, 1
uint32                  length of the header
uint64                  place of the header, which ends the file
array data              each array at a multiple of 64 bytes, record after record
tables                  ids (fixed-width bytes, sorted) and per array name the places, int64
                        (records,), -1 for none, and the shapes, int64 (records, dimensions)
header                  JSON: number of records, the tables' places, per array name its dtype and
                        scale (a stored uint8 times the scale is the value)
======================  =======================================================================

Nothing in it is executed when it is read. The ids are looked up by bisection in the mapped file,
so a process that opens it holds no index of its own.
"""

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np

from xmodaler.utils.errors import UserError

from .bad_samples import SampleError
from .feature_store import FeatureStore

MAGIC = b"XMFEATS\0"
VERSION = 1
ALIGNMENT = 64
PREAMBLE = struct.Struct("<8sIIQ")


class PackedStore(FeatureStore):
    """A file written by :func:`.packing.pack`.

    Args:
        path: The file.

    Raises:
        UserError: It is no such file, of a later version, or cut off.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self._path = Path(path)
        self._header = _read_header(self._path)
        self._map: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_map": None}

    @property
    def _bytes(self) -> np.ndarray:
        if self._map is None:
            self._map = np.memmap(self._path, dtype=np.uint8, mode="r")
        return self._map

    def _view(self, offset: int, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        return self._bytes[offset : offset + size].view(dtype).reshape(shape)

    @property
    def _ids(self) -> np.ndarray:
        return self._view(self._header["ids"], self._header["id_dtype"], (len(self),))

    def _row(self, record_id: str) -> int:
        wanted = record_id.encode("utf-8")
        ids = self._ids
        row = int(np.searchsorted(ids, np.bytes_(wanted)))
        return row if row < len(ids) and bytes(ids[row]) == wanted else -1

    def __len__(self) -> int:
        return self._header["records"]

    def __contains__(self, record_id: str) -> bool:
        return self._row(record_id) >= 0

    @property
    def ids(self) -> list[str]:
        return [name.decode("utf-8") for name in self._ids.tolist()]

    def get(self, record_id: str) -> dict[str, np.ndarray]:
        """The arrays of a record; those with a scale and float16 ones as float32."""
        row = self._row(record_id)
        if row < 0:
            raise SampleError(f"record '{record_id}'", f"no features, it is not in {self._path}")
        try:
            arrays = {
                name: self._array(entry, row) for name, entry in self._header["arrays"].items()
            }
        except (ValueError, KeyError, TypeError):
            raise SampleError(
                f"record '{record_id}'", f"its entry in {self._path} is damaged"
            ) from None
        return {name: array for name, array in arrays.items() if array is not None}

    def _array(self, entry: dict[str, Any], row: int) -> np.ndarray | None:
        place = int(self._view(entry["places"], "<i8", (len(self),))[row])
        if place < 0:
            return None
        shapes = self._view(entry["shapes"], "<i8", (len(self), entry["dimensions"]))
        stored = self._view(place, entry["dtype"], tuple(shapes[row].tolist()))
        if entry["scale"] is not None:
            return stored * np.float32(entry["scale"])
        return stored.astype(np.float32) if entry["dtype"] == "<f2" else stored.copy()


def _read_header(path: Path) -> dict[str, Any]:
    wrong = UserError(f"'{path}' is not a feature file written by tools/pack_features.py")
    try:
        with open(path, "rb") as file:
            fixed = file.read(PREAMBLE.size)
            if len(fixed) < PREAMBLE.size or not fixed.startswith(MAGIC):
                raise wrong
            _, version, length, place = PREAMBLE.unpack(fixed)
            if version > VERSION:
                raise UserError(
                    f"'{path}' has version {version} of the packed format, this program reads "
                    f"{VERSION}; pack the features again or update xmodaler"
                )
            if os.fstat(file.fileno()).st_size != place + length:
                raise UserError(f"'{path}' is cut off or damaged; pack the features again")
            file.seek(place)
            return json.loads(file.read(length))
    except OSError as error:
        raise UserError(f"feature file '{path}' cannot be read: {error.strerror}") from None
    except ValueError as error:
        if isinstance(error, UserError):
            raise
        raise wrong from None
