"""Map-style datasets: records in one buffer, and records mapped to samples."""

import copy
import logging
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from xmodaler.utils.errors import UserError

from .bad_samples import BAD_KEY, SampleError

_logger = logging.getLogger(__name__)
_MAX_TRIES = 100


class DatasetFromList(Dataset):
    """Records of a list, by default serialised into one numpy buffer.

    A list of Python objects grows in every forked worker, since reading an object writes its
    reference count and so copies its memory page. One buffer has one reference count: the memory
    of a worker stays flat however many records it has read.

    Args:
        lst: The records.
        copy: Give a deep copy of a record rather than the record (only without ``serialize``).
        serialize: Keep the records as bytes.
    """

    def __init__(self, lst: list[Any], copy: bool = True, serialize: bool = True) -> None:
        self._copy = copy
        self._serialize = serialize
        if not serialize:
            self._records = lst
            return
        chunks = [pickle.dumps(record, protocol=pickle.HIGHEST_PROTOCOL) for record in lst]
        self._ends = np.cumsum([len(chunk) for chunk in chunks], dtype=np.int64)
        self._buffer = np.frombuffer(b"".join(chunks), dtype=np.uint8)
        mebibytes = self._buffer.nbytes / 2**20
        _logger.info("Serialised %d records into %.2f MiB", len(lst), mebibytes)

    def __len__(self) -> int:
        return len(self._ends) if self._serialize else len(self._records)

    def __getitem__(self, index: int) -> Any:
        if not self._serialize:
            record = self._records[index]
            return copy.deepcopy(record) if self._copy else record
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        start = 0 if index == 0 else int(self._ends[index - 1])
        # These bytes were written by this object, never read from a file.
        return pickle.loads(memoryview(self._buffer[start : int(self._ends[index])]))


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed Python's, numpy's and torch's CPU generators inside, and restore them afterwards.

    Args:
        seed: A non-negative integer below 2**63.
    """
    python_state, numpy_state = random.getstate(), np.random.get_state()
    torch_state = torch.get_rng_state()
    try:
        random.seed(seed)
        np.random.seed([seed & 0xFFFFFFFF, seed >> 32])
        # Not torch.manual_seed, which would reseed the accelerators of the training process too.
        torch.default_generator.manual_seed(seed)
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)


class MapDataset(Dataset):
    """``map_func`` applied to the records of a dataset, with a policy for those that fail.

    An item is asked for by its index or by ``(index, seed)``. With a seed, the mapping draws its
    random numbers from that seed alone, so a sample depends neither on the worker that makes it
    nor on the samples before it, and the generators of the calling process stay as they were.

    A record is bad when ``map_func`` raises :class:`SampleError` or OSError; a record for which
    it returns None is left out silently. In training another record takes its place, chosen from
    the seed; in evaluation (``replace_bad=False``) the item is only a note.

    Args:
        dataset: Records by index.
        map_func: ``record -> sample``; a sample is a dict.
        replace_bad: Put another record in the place of one that cannot be mapped.
    """

    def __init__(
        self, dataset: Dataset, map_func: Callable[[Any], Any], replace_bad: bool = True
    ) -> None:
        self._dataset = dataset
        self._map_func = map_func
        self._replace_bad = replace_bad

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, key: int | tuple[int, int]) -> Any:
        if isinstance(key, tuple):
            index, seed = key
            with isolated_rng(seed):
                return self._get(index, seed)
        return self._get(key, 42 + int(key))

    def _get(self, index: int, seed: int) -> Any:
        notes: list[str] = []
        others = None
        for attempt in range(_MAX_TRIES):
            sample, note = self._map(index)
            notes.extend(note)
            if sample is not None:
                return {**sample, BAD_KEY: notes} if notes else sample
            if not self._replace_bad:
                return {BAD_KEY: notes}
            if attempt == 3:
                _logger.warning("No sample after %d records, the last at index %d", attempt, index)
            # A generator of its own: the number of retries must not shift the sample's draws.
            others = others or random.Random(seed)
            index = others.randrange(len(self))
        reasons = "; ".join(dict.fromkeys(notes[-3:])) or "the mapper returned None for all"
        raise UserError(f"none of {_MAX_TRIES} records in a row could be mapped: {reasons}")

    def _map(self, index: int) -> tuple[Any, list[str]]:
        record = self._dataset[index]
        try:
            return self._map_func(record), []
        except SampleError as error:
            return None, [str(error)]
        except OSError as error:
            return None, [f"record {index}: {error}"]
