"""Relation matrices between the regions of pictures, as graph encoders read them."""

import json
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch

from xmodaler.datasets.annotations import Problem
from xmodaler.datasets.bad_samples import SampleError
from xmodaler.datasets.feature_store import open_feature_store
from xmodaler.datasets.packing import Record, pack
from xmodaler.functional import spatial_relations
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .feature_sink import PACKED_SUFFIXES


@dataclass
class RelationSummary:
    """What was read and written.

    Attributes:
        pictures: Matrices that were written.
        regions: Their regions.
        edges: Region pairs by label, 0 (no edge) left out.
        problems: Pictures that were left out, and why.
    """

    pictures: int = 0
    regions: int = 0
    edges: dict[int, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def count(self, matrix: np.ndarray) -> None:
        """Add the matrix of a picture."""
        self.pictures += 1
        self.regions += len(matrix)
        labels, counts = np.unique(matrix[matrix > 0], return_counts=True)
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True):
            self.edges[label] = self.edges.get(label, 0) + count

    def __str__(self) -> str:
        lines = [f"left out {problem}" for problem in self.problems[:20]]
        if len(self.problems) > 20:
            lines.append(f"left out {len(self.problems) - 20} more")
        found = ", ".join(f"{label}: {count}" for label, count in sorted(self.edges.items()))
        lines.append(
            f"{self.pictures} pictures, {self.regions} regions, left out {len(self.problems)}; "
            f"edges by label: {found or 'none'}"
        )
        return "\n".join(lines)


def spatial_matrices(
    features: str | os.PathLike, max_regions: int = 0
) -> Iterator[Record | SampleError]:
    """The spatial relations of stored regions (Yao et al., ECCV 2018, section 3.2).

    Args:
        features: A folder or packed file whose records have ``boxes``, ``image_w``, ``image_h``.
        max_regions: Only so many of the regions; 0 takes all, which the data sets expect.

    Yields:
        Ids with the matrix ``features`` (N, N) int16, or what is wrong with a record.

    Raises:
        UserError: There are no features.
    """
    store = open_feature_store(features)
    for record_id in store.ids:
        try:
            arrays = store.get(record_id)
            lacking = [name for name in ("boxes", "image_w", "image_h") if name not in arrays]
            if lacking:
                raise SampleError(f"record '{record_id}'", f"has no {', '.join(lacking)}")
            boxes = np.asarray(arrays["boxes"], dtype=np.float64)[: max_regions or None]
            if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
                raise SampleError(f"record '{record_id}'", f"boxes of shape {boxes.shape}")
        except SampleError as error:
            yield error
            continue
        size = tuple(float(np.ravel(arrays[name])[0]) for name in ("image_w", "image_h"))
        labels = spatial_relations(torch.from_numpy(boxes), size)
        yield record_id, {"features": labels.numpy().astype(np.int16)}


def semantic_matrices(path: str | os.PathLike) -> Iterator[Record | SampleError]:
    """Semantic relations that a classifier found, from JSON lines.

    A line is ``{"id": 42, "regions": 36, "relations": [[subject, label, object], ..]}`` with
    regions from 0 and labels from 1; of several labels of one pair the first counts.

    Yields:
        Ids with the matrix ``features`` (N, N) int16, entry [subject, object], or what is wrong
        with a line.

    Raises:
        UserError: The file cannot be read.
    """
    path = expand_path(path)
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield _matrix_of_line(line)
                    except (ValueError, KeyError, TypeError, IndexError) as error:
                        reason = f"no relations: {error}"
                        yield SampleError(f"{os.path.basename(path)} line {number}", reason)
    except UnicodeDecodeError:
        raise UserError(f"'{path}' is not UTF-8 text") from None
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from None


def _matrix_of_line(line: str) -> Record:
    record = json.loads(line)
    count = int(record["regions"])
    if count < 1:
        raise ValueError(f"{count} regions")
    matrix = np.zeros((count, count), dtype=np.int16)
    for subject, label, target in record["relations"]:
        if not (0 <= subject < count and 0 <= target < count and label >= 1):
            raise ValueError(f"[{subject}, {label}, {target}] among {count} regions")
        if not matrix[subject, target]:
            matrix[subject, target] = label
    return str(record["id"]), {"features": matrix}


def write_relations(
    records: Iterator[Record | SampleError], out: str | os.PathLike, max_bad_fraction: float = 0.01
) -> RelationSummary:
    """Write matrices where DATALOADER.RELATION_FILE can name them.

    Args:
        records: As :func:`spatial_matrices` and :func:`semantic_matrices` give them.
        out: ``.npz`` with one array per picture, or a packed ``.xmf``, which opens at once however
            many pictures it holds.
        max_bad_fraction: A greater part of bad records stops the run.

    Raises:
        UserError: No record or too many bad ones, or another ending.
    """
    summary = RelationSummary()

    seen: set[str] = set()

    def counted() -> Iterator[Record | SampleError]:
        for record in records:
            if not isinstance(record, SampleError):
                if record[0] in seen:
                    record = SampleError(f"record '{record[0]}'", "occurs twice")
                else:
                    seen.add(record[0])
            if isinstance(record, SampleError):
                summary.problems.append(Problem(record.record, record.reason, record.record))
            else:
                summary.count(record[1]["features"])
            yield record

    out = os.fspath(out)
    if out.endswith(PACKED_SUFFIXES):
        pack(counted(), out, max_bad_fraction=max_bad_fraction)
        return summary
    if not out.endswith(".npz"):
        raise UserError(f"'{out}' must end with .npz or {' or '.join(PACKED_SUFFIXES)}")
    with atomic_write(out) as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive:
            for record in counted():
                if not isinstance(record, SampleError):
                    # np.savez would take the ids as keywords, some of which are its own.
                    with archive.open(f"{record[0]}.npy", "w") as entry:
                        np.lib.format.write_array(entry, record[1]["features"])
        bad = len(summary.problems)
        if not summary.pictures or bad > max_bad_fraction * (summary.pictures + bad):
            first = f", the first: {summary.problems[0]}" if bad else ""
            count = summary.pictures + bad
            raise UserError(f"{bad} of {count} records have no usable relations{first}")
    return summary
