"""Reading old pickles without running what they say: only plain containers and numpy data.

A pickle is a program that names functions and calls them. Here every name comes from a fixed
table, and numpy objects are not rebuilt by numpy's own hooks, which trust the state they are
given, but from plain descriptions that are checked first.
"""

import collections
import contextlib
import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any, ClassVar

import numpy as np

from .errors import UserError
from .file_io import PathManager, expand_path


def load(path_or_file: str | os.PathLike[str] | IO[bytes], encoding: str = "bytes") -> Any:
    """Load a pickle that holds nothing but builtin containers, scalars and numpy data.

    Args:
        path_or_file: A path (``~`` and ``$VAR`` are expanded), an address, or an open file.
        encoding: How strings written by Python 2 are read, as in :func:`pickle.load`.

    Returns:
        The object.

    Raises:
        UserError: The file is missing or damaged, or it names anything else; nothing that it
            names has been imported or called.
    """
    with _opened(path_or_file) as (file, source):
        try:
            return _finish(_RestrictedUnpickler(file, encoding=encoding).load(), {})
        except _Refused as refusal:
            raise UserError(
                f"Pickle {source} {refusal}, which is refused; only builtin containers and "
                "numpy arrays are read from pickles"
            ) from None
        except Exception as error:
            # A damaged pickle can fail in any way at all, from EOFError to MemoryError.
            raise UserError(
                f"Pickle {source} cannot be read, it is damaged or no pickle "
                f"({type(error).__name__}: {error})"
            ) from error


def loads(data: bytes, encoding: str = "bytes") -> Any:
    """:func:`load` for bytes in memory."""
    return load(io.BytesIO(data), encoding)


def load_array_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Load a mapping from ids to arrays.

    Args:
        path: A ``.npz`` (one array per id) or a pickled dict whose keys are str, bytes or int.

    Returns:
        The arrays by id, the id as str.

    Raises:
        UserError: The file is missing, damaged, or of another form.
    """
    path = expand_path(path)
    if path.endswith(".npz"):
        with _opened(path) as (file, source):
            try:
                with np.load(file, allow_pickle=False) as archive:
                    return {key: archive[key] for key in archive.files}
            except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
                raise UserError(f"Archive {source} cannot be read: {error}") from error
    loaded = load(path)
    if not isinstance(loaded, dict):
        raise UserError(
            f"Pickle '{path}' holds a {type(loaded).__name__} where a dict from ids to arrays "
            "is expected"
        )
    return {_as_id(key, path): np.asarray(value) for key, value in loaded.items()}


def _as_id(key: Any, path: str) -> str:
    if isinstance(key, bytes):
        return key.decode("utf-8")
    if isinstance(key, str | int | np.integer):
        return str(key)
    raise UserError(f"Pickle '{path}' has the key {key!r} where an id (text or int) is expected")


class _Refused(Exception):
    """What a pickle asked for and does not get."""


class _RestrictedUnpickler(pickle._Unpickler):
    """An unpickler that knows a fixed table of globals and refuses every other one.

    The one written in Python: the other keeps its memo in an array as long as the greatest index
    that a file names, so that a few damaged bytes could take all memory there is.
    """

    dispatch: ClassVar = dict(pickle._Unpickler.dispatch)

    def load_bytearray8(self) -> None:
        """Reads before it makes room: the length may be damaged too."""
        (length,) = struct.unpack("<Q", self.read(8))
        content = self.read(length)
        if len(content) < length:
            raise EOFError("pickle data was truncated")
        self.append(bytearray(content))

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        found = _TYPES.get((module, name))
        if found is not None:
            return found
        function = _FUNCTIONS.get((module, name))
        if function is None:
            raise _Refused(f"names '{module}.{name}'")
        # A fresh function each time: a pickle can set attributes of what it is handed, and must
        # not reach an object that others use. The types above are immutable.
        return lambda *args: function(*args)

    def persistent_load(self, pid: Any) -> Any:
        raise _Refused("refers to an object outside of it")


class _Dtype:
    """The description of a plain numpy dtype."""

    def __init__(self, spec: str | bytes) -> None:
        self._spec = _text(spec)
        self._byte_order = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._byte_order = _text(state[1])
        if any(part is not None for part in state[2:5]):
            raise _Refused("holds a structured numpy dtype")

    def build(self) -> np.dtype:
        try:
            dtype = np.dtype(self._spec)
        except TypeError as error:
            raise _Refused(f"names the numpy dtype {self._spec!r}") from error
        if dtype.kind not in "?biufcSUO" or self._byte_order not in ("<", ">", "|", "="):
            raise _Refused(f"names the numpy dtype {self._spec!r}")
        return dtype if dtype.kind == "O" else dtype.newbyteorder(self._byte_order)


class _Array:
    """A numpy array as its pickle describes it."""

    def __init__(self) -> None:
        self._array = np.empty(0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        shape, dtype, fortran, content = state[-4:]
        order = "F" if fortran else "C"
        dtype = dtype.build()
        if dtype.kind == "O":
            flat = np.empty(len(content), dtype=object)
            for index, item in enumerate(content):
                flat[index] = item
        else:
            # Python 2 text that was decoded as latin1 is bytes again after encoding.
            raw = content.encode("latin1") if isinstance(content, str) else content
            flat = np.frombuffer(raw, dtype=dtype).copy()
        self._array = flat.reshape(shape, order=order)

    def build(self) -> np.ndarray:
        return self._array


def _reconstruct_array(subtype: Any, shape: Any, typecode: Any) -> _Array:
    del shape, typecode
    if subtype is not _NDARRAY:
        raise _Refused("rebuilds a subclass of numpy's array")
    return _Array()


def _make_dtype(spec: Any, *flags: Any) -> _Dtype:
    del flags
    return _Dtype(spec)


def _make_scalar(dtype: _Dtype, content: bytes | str) -> Any:
    built = dtype.build()
    if built.kind == "O":
        raise _Refused("holds a numpy scalar of objects")
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype=built, count=1)[0]


def _array_from_buffer(buffer: Any, dtype: _Dtype, shape: Any, order: str) -> np.ndarray:
    return np.frombuffer(buffer, dtype=dtype.build()).reshape(shape, order=order).copy(order="K")


def _encode_bytes(text: str, encoding: str) -> bytes:
    """How protocols 0 to 2 of Python 3 write bytes; pickle uses no other codec."""
    if _text(encoding) != "latin1":
        raise _Refused(f"uses the codec {encoding!r}")
    return text.encode("latin1")


def _make_counter(*args: Any) -> collections.Counter:
    return collections.Counter(*args)


def _text(value: str | bytes) -> str:
    return value.decode("ascii") if isinstance(value, bytes) else value


# What a pickle names as numpy's array class; only `_reconstruct_array` looks at it.
_NDARRAY = "numpy.ndarray"

_TYPES: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): collections.defaultdict,
    ("numpy", "ndarray"): _NDARRAY,
}
_FUNCTIONS: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "Counter"): _make_counter,
    ("_codecs", "encode"): _encode_bytes,
    ("numpy", "dtype"): _make_dtype,
}
for _module in ("builtins", "__builtin__"):
    for _type in (
        *(bool, int, float, complex, str, bytes, bytearray),
        *(list, tuple, dict, set, frozenset, slice, range),
    ):
        _TYPES[_module, _type.__name__] = _type
    _TYPES.update({(_module, "long"): int, (_module, "unicode"): str, (_module, "xrange"): range})
# The modules in which numpy's pickles name these moved between numpy 1 and 2.
for _module in ("numpy.core", "numpy._core"):
    _FUNCTIONS[f"{_module}.multiarray", "_reconstruct"] = _reconstruct_array
    _FUNCTIONS[f"{_module}.multiarray", "scalar"] = _make_scalar
    _FUNCTIONS[f"{_module}.numeric", "_frombuffer"] = _array_from_buffer


def _finish(value: Any, seen: dict[int, Any]) -> Any:
    """Replace the descriptions of numpy objects in a tree by the objects, in place."""
    if isinstance(value, _Array | _Dtype):
        built = value.build()
        return _finish(built, seen) if _is_object_array(built) else built
    if isinstance(value, tuple):
        finished = tuple(_finish(item, seen) for item in value)
        changed = any(new is not old for new, old in zip(finished, value, strict=True))
        return finished if changed else value
    if not isinstance(value, list | dict) and not _is_object_array(value):
        return value
    if id(value) in seen:
        return value
    seen[id(value)] = value
    if isinstance(value, dict):
        for key, item in value.items():
            value[key] = _finish(item, seen)
    elif isinstance(value, list):
        value[:] = [_finish(item, seen) for item in value]
    else:
        flat = value.ravel(order="K")  # a view: arrays from pickles are contiguous
        for index, item in enumerate(flat):
            flat[index] = _finish(item, seen)
    return value


def _is_object_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind == "O"


@contextlib.contextmanager
def _opened(
    path_or_file: str | os.PathLike[str] | IO[bytes],
) -> Iterator[tuple[IO[bytes], str]]:
    if not isinstance(path_or_file, str | os.PathLike):
        yield path_or_file, f"'{getattr(path_or_file, 'name', type(path_or_file).__name__)}'"
        return
    path = expand_path(path_or_file)
    try:
        file = PathManager.open(path, "rb")
    except FileNotFoundError:
        raise UserError(f"File '{path}' does not exist") from None
    except OSError as error:
        raise UserError(f"File '{path}' cannot be read: {error.strerror or error}") from None
    with file:
        yield file, f"'{path}'"
