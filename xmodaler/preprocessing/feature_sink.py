"""Where extracted features go: a folder of archives or one packed file, and never half of one."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xmodaler.datasets.annotations import read_json
from xmodaler.datasets.bad_samples import SampleError
from xmodaler.datasets.feature_store import FeatureStore, open_feature_store
from xmodaler.datasets.packing import Record, pack, records_of_folder
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

PACKED_SUFFIXES = (".xmf", ".pack")


class FeatureSink:
    """Collects the arrays of records so that a run which was stopped can go on.

    In a folder each record is one compressed ``<id>.npz`` that appears when it is complete. A
    packed file (``.xmf``) is put together at the end from such a folder, ``<out>.parts``, and
    takes over the records of an older file of that name.

    A file ``.<name>.settings.json`` beside the features remembers how they were made, so that
    features of two kinds are never mixed.

    Args:
        out: A folder, or a file ending with ``.xmf``.
        settings: How the features are made.
        dtype: ``float32`` or ``float16``, of ``features``; None keeps their type.

    Raises:
        UserError: The place holds features that were made with other settings.
    """

    def __init__(
        self, out: str | os.PathLike, settings: Mapping[str, Any], dtype: str | None = None
    ) -> None:
        self.out = Path(expand_path(out))
        self.dtype = dtype
        self.is_packed = self.out.suffix in PACKED_SUFFIXES
        if not self.is_packed and self.out.is_file():
            raise UserError(
                f"'{out}' is a file; name a folder, or a packed file ending with "
                f"{' or '.join(PACKED_SUFFIXES)}"
            )
        self.folder = self.out.with_name(self.out.name + ".parts") if self.is_packed else self.out
        self._older: FeatureStore | None = None
        if self.is_packed and self.out.exists():
            self._older = open_feature_store(self.out)
        self._check_settings({**settings, "dtype": dtype})
        self._done = self._stored()

    def _stored(self) -> set[str]:
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return {name[: -len(".npz")] for name in names if name.endswith(".npz")}

    def _check_settings(self, settings: dict[str, Any]) -> None:
        path = self.out.with_name(f".{self.out.name}.settings.json")
        is_used = self._older is not None or bool(self._stored())
        if is_used and path.is_file():
            older = read_json(path)
            differing = [key for key in settings if older.get(key) != settings[key]]
            if differing:
                key = differing[0]
                raise UserError(
                    f"'{self.out}' holds features made with {key} {older.get(key)!r}, not "
                    f"{settings[key]!r}; give another --out or remove them"
                )
            return
        with atomic_write(path, "w") as file:
            json.dump(settings, file, indent=1)

    def __contains__(self, record_id: str) -> bool:
        return record_id in self._done or (self._older is not None and record_id in self._older)

    def __len__(self) -> int:
        return len(self._done) + (len(self._older) if self._older is not None else 0)

    def write(self, record_id: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Store the arrays of a record.

        Raises:
            SampleError: The id cannot name a file, or a value is not finite.
            UserError: The disk is full or not writable.
        """
        if not record_id or os.path.basename(record_id) != record_id or "\0" in record_id:
            raise SampleError(f"record '{record_id}'", "its id cannot be the name of a file")
        features = np.asarray(arrays["features"])
        if self.dtype is not None:
            with np.errstate(over="ignore"):
                features = features.astype(self.dtype)
        if not np.isfinite(features).all():
            raise SampleError(f"record '{record_id}'", "its features are not finite numbers")
        with atomic_write(self.folder / f"{record_id}.npz") as file:
            np.savez_compressed(file, **{**arrays, "features": features})
        self._done.add(record_id)

    def finish(self) -> int:
        """Put the packed file together, where one is wanted.

        Returns:
            Number of records that the folder or file now holds.

        Raises:
            UserError: There is no record.
        """
        if not self.is_packed:
            return len(self._done)
        if self._done:
            pack(self._records(), self.out, max_bad_fraction=0.0)
            shutil.rmtree(self.folder)
            self._older, self._done = open_feature_store(self.out), set()
        return len(self)

    def _records(self) -> Iterator[Record | SampleError]:
        if self._older is not None:
            for record_id in self._older.ids:
                arrays = self._older.get(record_id)
                if self.dtype is not None:
                    arrays["features"] = arrays["features"].astype(self.dtype)
                yield record_id, arrays
        yield from records_of_folder(self.folder)
