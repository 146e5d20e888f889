"""Stored features of images or videos behind one interface.

* A folder holds one ``<id>.npz`` or ``<id>.npy`` per record.
* A packed file holds all records; it is mapped into memory, so processes share its pages and
  opening it costs nothing (layout in :mod:`.packed_store`).
"""

import os
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np

from xmodaler.functional import read_np
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .bad_samples import SampleError

PACKED_SUFFIX = ".xmf"
"""Usual ending of packed files."""


class FeatureStore(ABC):
    """Named arrays by record id."""

    @abstractmethod
    def get(self, record_id: str) -> dict[str, np.ndarray]:
        """The arrays of a record, ``features`` (n, D) among them.

        Raises:
            SampleError: There is no such record, or it cannot be read.
        """

    @abstractmethod
    def __contains__(self, record_id: str) -> bool: ...

    @property
    @abstractmethod
    def ids(self) -> list[str]:
        """Ids of all records, sorted."""

    def __len__(self) -> int:
        return len(self.ids)


def open_feature_store(path: str | os.PathLike) -> FeatureStore:
    """The store at a path: a folder of npz/npy files or a packed file.

    Where there is nothing, a packed file of that name with ``.xmf`` is opened, so that a config
    that names the folder serves for both.

    Raises:
        UserError: There is nothing there, or it is neither.
    """
    path = Path(expand_path(path))
    if path.is_dir():
        return FolderStore(path)
    packed = path.with_name(path.name + PACKED_SUFFIX)
    if not path.exists() and packed.is_file():
        path = packed
    if not path.exists():
        raise UserError(
            f"features '{path}' do not exist; DATALOADER.FEATS_FOLDER must name a folder of "
            ".npz/.npy files or a file written by tools/pack_features.py"
        )
    from .packed_store import PackedStore

    return PackedStore(path)


class FolderStore(FeatureStore):
    """A folder with one file per record; ids of files in folders below hold their path.

    ``<id>.npy`` and an ``<id>.npz`` of exactly one array, whatever its name, give that array as
    ``features``; an archive of several gives them under their names.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self._folder = Path(folder)

    def _find(self, record_id: str) -> Path | None:
        for suffix in (".npz", ".npy"):
            path = self._folder / (record_id + suffix)
            if path.is_file():
                return path
        return None

    def get(self, record_id: str) -> dict[str, np.ndarray]:
        path = self._find(record_id)
        if path is None:
            raise SampleError(
                f"record '{record_id}'",
                f"no features, neither {record_id}.npz nor {record_id}.npy is in {self._folder}",
            )
        return read_arrays(path)

    def __contains__(self, record_id: str) -> bool:
        return self._find(record_id) is not None

    @property
    def ids(self) -> list[str]:
        found = set()
        for folder, _, names in os.walk(self._folder):
            below = os.path.relpath(folder, self._folder)
            for name in names:
                stem, suffix = os.path.splitext(name)
                if suffix in (".npz", ".npy"):
                    found.add(stem if below == "." else f"{below}/{stem}".replace(os.sep, "/"))
        return sorted(found)


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """The arrays of a ``.npz`` or ``.npy`` file, the only one of a file as ``features``.

    Raises:
        SampleError: The file is damaged, empty, or holds Python objects.
    """
    try:
        arrays = dict(read_np(path))
    except (UserError, zlib.error) as error:
        raise SampleError(f"feature file '{path}'", f"not readable ({error})") from None
    if not arrays:
        raise SampleError(f"feature file '{path}'", "holds no array")
    return arrays


@lru_cache(maxsize=6)
def _read_side_file(path: str, modified: float) -> "Mapping[str, np.ndarray] | FeatureStore":
    from xmodaler.utils import safe_pickle

    if path.endswith((".pkl", ".npz")):
        return safe_pickle.load_array_dict(path)
    return open_feature_store(path)


class SideFile:
    """One array per image from a file beside the features: relations, attributes, global vectors.

    The file is a pickled dict ``id -> array``, an npz archive with one array per id, or a packed
    file. It is read once per process and shared by all mappers that name it.

    Args:
        path: The file, or '' for none (the object is then false). Where it does not exist, the
            same name with ``.npz`` or ``.xmf`` is read: configs name the pickles of X-modaler.
    """

    def __init__(self, path: str) -> None:
        self.path = expand_path(path)
        if path and not os.path.isfile(self.path):
            stem = os.path.splitext(self.path)[0]
            others = (stem + ".npz", stem + PACKED_SUFFIX)
            self.path = next((name for name in others if os.path.isfile(name)), self.path)

    def __bool__(self) -> bool:
        return bool(self.path)

    def load(self) -> "Mapping[str, np.ndarray] | FeatureStore":
        """The content by record id.

        Raises:
            UserError: The file does not exist or cannot be read.
        """
        if not os.path.isfile(self.path):
            raise UserError(
                f"'{self.path}' does not exist; RELATION_FILE, ATTRIBUTE_FILE and GV_FEAT_FILE of "
                "DATALOADER must name a pickled dict, an .npz archive or a packed feature file"
            )
        return _read_side_file(os.path.abspath(self.path), os.path.getmtime(self.path))

    def __contains__(self, record_id: str) -> bool:
        content = self.load()
        return record_id in content or _plain_number(record_id) in content

    @property
    def example(self) -> str:
        """One of its ids, for messages."""
        content = self.load()
        ids = content.ids if isinstance(content, FeatureStore) else list(content)
        return ids[0] if ids else "(none)"

    def get(self, record_id: str) -> np.ndarray:
        """The array of a record.

        Raises:
            SampleError: The file has none for it.
        """
        content = self.load()
        for name in (record_id, _plain_number(record_id)):
            if name in content:
                found = content.get(name)
                return found["features"] if isinstance(found, dict) else found
        raise SampleError(f"record '{record_id}'", f"{self.path} has no entry for it")


def _plain_number(record_id: str) -> str:
    """'000123' -> '123': some files key an image by its number, others by its padded name."""
    return str(int(record_id)) if record_id.isdecimal() else record_id
