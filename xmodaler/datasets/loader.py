"""The DataLoader of this package: hides notes about bad records and words errors plainly."""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from xmodaler.utils.errors import UserError

from .bad_samples import BadSampleMonitor
from .common import MapDataset
from .samplers import ResumableBatchSampler

_WORKER_ERROR = re.compile(r"Caught \w+ in DataLoader worker process.*\n\S*Error: ", re.DOTALL)


class SampleLoader(DataLoader):
    """A DataLoader over a :class:`MapDataset` that reports bad records and stops at too many.

    Attributes:
        bad_samples: The :class:`BadSampleMonitor` of the current epoch.

    Args:
        dataset: Gives samples.
        batch_sampler: Gives the keys of each batch.
        num_workers: Worker processes; 0 maps in this process.
        collate_fn: ``list of samples -> batch``.
        worker_init_fn: Called with the worker's id in each worker.
        max_bad_fraction: The greatest part of an epoch's records that may be bad.
    """

    def __init__(
        self,
        dataset: MapDataset,
        batch_sampler: ResumableBatchSampler,
        *,
        num_workers: int,
        collate_fn: Any,
        worker_init_fn: Any,
        max_bad_fraction: float,
    ) -> None:
        # A generator of its own: the base seed of the workers must not be drawn from the
        # generator whose state a checkpoint keeps for the model.
        super().__init__(
            dataset,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            collate_fn=collate_fn,
            worker_init_fn=worker_init_fn,
            pin_memory=torch.cuda.is_available(),
            generator=torch.Generator().manual_seed(0),
        )
        self.bad_samples = BadSampleMonitor(len(batch_sampler.sampler), max_bad_fraction)

    def __iter__(self) -> Iterator[Any]:
        self.bad_samples.start_epoch()
        return self._checked(super().__iter__())

    def _checked(self, batches: Iterator[Any]) -> Iterator[Any]:
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except UserError as error:
                # A worker's error arrives with the worker's traceback in its message.
                text = str(error)
                match = _WORKER_ERROR.match(text)
                raise (UserError(text[match.end() :].strip()) if match else error) from None
            batch = self.bad_samples.check(batch)
            if batch is not None:
                yield batch
