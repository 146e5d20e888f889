"""From files of pictures or videos to stored features, in runs that may be stopped and go on."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from xmodaler.datasets.annotations import Problem, read_captions
from xmodaler.datasets.bad_samples import SampleError
from xmodaler.utils.errors import MissingDependencyError, UserError
from xmodaler.utils.file_io import expand_path

from .feature_sink import FeatureSink

_LISTED = 20

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Source:
    """A file and the id under which its features are stored."""

    item_id: str
    path: str


@dataclass
class ExtractionSummary:
    """What a run did.

    Attributes:
        written: Files whose features were stored.
        kept: Files whose features were there already.
        problems: Files that were left out, and why.
        total: Records that the folder or packed file now holds.
    """

    written: int
    kept: int
    problems: list[Problem]
    total: int = 0

    def __str__(self) -> str:
        lines = [f"left out {problem}" for problem in self.problems[:_LISTED]]
        if len(self.problems) > _LISTED:
            lines.append(f"left out {len(self.problems) - _LISTED} more")
        lines.append(
            f"wrote {self.written}, had {self.kept} already, left out {len(self.problems)}; "
            f"{self.total} records in all"
        )
        return "\n".join(lines)


def files_of_folder(
    folder: str | os.PathLike, suffixes: Iterable[str], numbers: bool = False
) -> list[Source]:
    """The files below a folder, sorted by path.

    Args:
        folder: Searched with its subfolders; hidden files are passed over.
        suffixes: Lower-case endings of the wanted files.
        numbers: Take the last number in a name, without leading zeros, as the id:
            ``COCO_val2014_000000391895.jpg`` is 391895. Otherwise the name without its ending.

    Raises:
        UserError: There is no such folder, no such file, or two files with one id.
    """
    folder = Path(expand_path(folder))
    if not folder.is_dir():
        raise UserError(f"'{folder}' is not a folder")
    wanted = frozenset(suffixes)
    found = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in wanted and not path.name.startswith(".") and path.is_file()
    )
    if not found:
        raise UserError(f"no file below '{folder}' ends with one of {', '.join(sorted(wanted))}")
    return _distinct([Source(_id_of(path, numbers), str(path)) for path in found])


def files_of_annotations(
    annotations: Sequence[str | os.PathLike], folder: str | os.PathLike
) -> list[Source]:
    """The files that COCO captions JSON (or JSON lines) names, under the ids it gives them.

    Args:
        annotations: The annotation files.
        folder: What the names in them are relative to.

    Raises:
        UserError: A file is unreadable, names no files, or two have one id.
    """
    images = [image for path in annotations for image in read_captions(path)[0]]
    named = [image for image in images if image.file_name]
    if not named:
        raise UserError(f"{', '.join(map(str, annotations))} do not say 'file_name' of any image")
    folder = expand_path(folder)
    found = {i.image_id: Source(i.image_id, os.path.join(folder, i.file_name)) for i in named}
    return list(found.values())


def _id_of(path: Path, numbers: bool) -> str:
    if not numbers:
        return path.stem
    digits = re.findall(r"\d+", path.stem)
    if not digits:
        raise UserError(f"'{path}' has no number in its name to serve as an id")
    return str(int(digits[-1]))


def _distinct(sources: list[Source]) -> list[Source]:
    seen: dict[str, str] = {}
    for source in sources:
        if source.item_id in seen:
            raise UserError(
                f"'{seen[source.item_id]}' and '{source.path}' would both have the id "
                f"'{source.item_id}'; give each file a name of its own"
            )
        seen[source.item_id] = source.path
    return sources


def extract_features(
    sources: Sequence[Source],
    read: Callable[[str], Any],
    compute: Callable[[list[Any]], list[Arrays | UserError]],
    sink: FeatureSink,
    *,
    batch_size: int = 16,
    workers: int = 4,
    max_bad_fraction: float = 0.01,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> ExtractionSummary:
    """Store the features of files; what is stored already is not done again.

    Files are read ahead by threads while features are computed. A file that cannot be read is
    left out and reported.

    Args:
        sources: The files.
        read: From a path to what ``compute`` takes; a :class:`UserError` means a bad file.
        compute: From a batch of these to the arrays of each, or to what is wrong with it.
        sink: Where to store them.
        batch_size: Files that are computed together.
        workers: Reading threads.
        max_bad_fraction: A greater part of bad files ends in an error; what was stored stays.
        progress: Wraps the sequence of files, to show how far the run is.

    Returns:
        What was done.

    Raises:
        UserError: No file or too many are unusable, or the disk is full.
    """
    if batch_size < 1 or workers < 1:
        raise UserError(f"{batch_size} files a batch with {workers} threads are impossible")
    waiting = [source for source in sources if source.item_id not in sink]
    summary = ExtractionSummary(0, len(sources) - len(waiting), [])
    batch: list[tuple[Source, Any]] = []
    for source, content in progress(
        _read_ahead(waiting, read, workers, max(workers, 2 * batch_size))
    ):
        if isinstance(content, UserError):
            summary.problems.append(Problem(source.path, str(content), source.item_id))
        else:
            batch.append((source, content))
        if len(batch) == batch_size:
            _store(batch, compute, sink, summary)
            batch = []
    if batch:
        _store(batch, compute, sink, summary)
    bad = len(summary.problems)
    if bad == len(sources) or bad > max_bad_fraction * len(sources):
        listed = "".join(f"\n  {problem}" for problem in summary.problems[:_LISTED])
        raise UserError(
            f"{bad} of {len(sources)} files are unusable, more than {max_bad_fraction:g}; the "
            f"features of the others stay in '{sink.folder}':{listed}"
        )
    summary.total = sink.finish()
    return summary


def _store(
    batch: list[tuple[Source, Any]],
    compute: Callable[[list[Any]], list[Arrays | UserError]],
    sink: FeatureSink,
    summary: ExtractionSummary,
) -> None:
    arrays = compute([content for _, content in batch])
    for (source, _), found in zip(batch, arrays, strict=True):
        try:
            if isinstance(found, UserError):
                raise SampleError(source.path, str(found))
            sink.write(source.item_id, found)
            summary.written += 1
        except SampleError as error:
            summary.problems.append(Problem(source.path, error.reason, source.item_id))


def _read_ahead(
    sources: Sequence[Source], read: Callable[[str], Any], workers: int, ahead: int
) -> Iterator[tuple[Source, Any]]:
    """Each file in order with its content, or with the error of reading it."""

    def attempt(source: Source) -> Any:
        try:
            return read(source.path)
        except MissingDependencyError:
            raise  # no file is to blame
        except UserError as error:
            return error

    remaining = iter(sources)
    with ThreadPoolExecutor(workers) as pool:
        running: deque[tuple[Source, Future]] = deque(
            (source, pool.submit(attempt, source)) for source in islice(remaining, ahead)
        )
        while running:
            source, future = running.popleft()
            yield source, future.result()
            for following in islice(remaining, 1):
                running.append((following, pool.submit(attempt, following)))
