"""Reading old pickles without running what they say: only plain containers and numpy arrays."""

import collections
import contextlib
import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from typing import IO, Any

import numpy as np

from .errors import UserError
from .file_io import PathManager, expand_path

_CONTAINERS = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "Counter"): collections.Counter,
    ("collections", "defaultdict"): collections.defaultdict,
}
_BUILTINS = {
    kind.__name__: kind
    for kind in (
        *(bool, int, float, complex, str, bytes, bytearray),
        *(list, tuple, dict, set, frozenset, slice, range, object),
    )
}
_BUILTINS["long"] = int
_BUILTINS["unicode"] = str
_BUILTINS["xrange"] = range
# The modules in which numpy's own pickles name these; they moved between numpy 1 and 2.
_NUMPY_CORE = ("numpy.core", "numpy._core")
_NUMPY_REBUILDERS = {
    "_reconstruct": np._core.multiarray._reconstruct,
    "scalar": np._core.multiarray.scalar,
}


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
            return _RestrictedUnpickler(file, source, encoding).load()
        except UserError:
            raise
        except Exception as error:
            # A damaged pickle can fail in any way at all, from EOFError to MemoryError.
            raise UserError(
                f"Pickle {source} cannot be read, it is damaged or no pickle "
                f"({type(error).__name__}: {error})"
            ) from error


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


class _RestrictedUnpickler(pickle.Unpickler):
    """An unpickler that knows a fixed table of globals and refuses every other one."""

    def __init__(self, file: IO[bytes], source: str, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        if (module, name) in _CONTAINERS:
            return _CONTAINERS[module, name]
        # Old protocols rebuild objects through these two helpers, and bytes through the codec.
        if module in ("copyreg", "copy_reg") and name == "_reconstructor":
            return _reconstruct_plain
        if (module, name) == ("_codecs", "encode"):
            return _encode_bytes
        found = _find_numpy(module, name)
        if found is not None:
            return found
        raise UserError(
            f"Pickle {self._source} names '{module}.{name}', which is refused; only builtin "
            "containers and numpy arrays are read from pickles"
        )

    def persistent_load(self, pid: Any) -> Any:
        raise UserError(f"Pickle {self._source} refers to an outside object, which is refused")


def _find_numpy(module: str, name: str) -> Any:
    if module == "numpy":
        if name == "ndarray":
            return np.ndarray
        if name == "dtype":
            return np.dtype
        found = getattr(np, name, None) if not name.startswith("_") else None
        return found if isinstance(found, type) and issubclass(found, np.generic) else None
    if module == "numpy.dtypes":
        found = getattr(np.dtypes, name, None)
        return found if isinstance(found, type) and issubclass(found, np.dtype) else None
    package, _, submodule = module.rpartition(".")
    if package in _NUMPY_CORE and submodule == "multiarray":
        return _NUMPY_REBUILDERS.get(name)
    if package in _NUMPY_CORE and submodule == "numeric" and name == "_frombuffer":
        return np._core.numeric._frombuffer
    return None


def _reconstruct_plain(cls: type, base: type, state: Any) -> Any:
    """Protocol 0 and 1 rebuilding, for subclasses of the admitted containers only."""
    if cls not in _CONTAINERS.values():
        raise UserError(f"Pickles may not rebuild a {cls.__name__}")
    return cls() if base is object else cls(state)


def _encode_bytes(text: str, encoding: str) -> bytes:
    """How protocols 0 to 2 of Python 3 write bytes; no other codec is used by pickle."""
    if encoding != "latin1":
        raise UserError(f"Pickles may not use the codec '{encoding}'")
    return text.encode("latin1")


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


def loads(data: bytes, encoding: str = "bytes") -> Any:
    """:func:`load` for bytes in memory."""
    return load(io.BytesIO(data), encoding)
