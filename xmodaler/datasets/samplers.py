"""Which record comes when: reproducible, resumable at any batch, the same for any worker count."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from xmodaler.utils.errors import UserError


def sample_seed(seed: int, epoch: int, index: int) -> int:
    """A 63-bit seed for the random choices made while mapping one record in one epoch."""
    words = np.random.SeedSequence((seed, epoch, index)).generate_state(1, np.uint64)
    return int(words[0]) >> 1


class TrainingSampler(Sampler[tuple[int, int]]):
    """A permutation of the records per epoch, cut into global batches shared out among ranks.

    All ranks draw the same permutation. Rank ``r`` takes the ``r``-th part of every global batch,
    so that ``world`` processes see the batches that one process with the same global batch sees;
    what does not fill a last batch is left out.

    Args:
        size: Number of records.
        global_batch: Records per optimizer step over all ranks.
        rank: This process.
        world: Number of processes.
        seed: The same on every rank.
    """

    def __init__(
        self, size: int, global_batch: int, rank: int = 0, world: int = 1, seed: int = 0
    ) -> None:
        if global_batch < 1 or global_batch % world:
            raise UserError(
                f"a global batch of {global_batch} cannot be shared out among {world} processes; "
                f"make it a positive multiple of {world}"
            )
        if size < global_batch:
            raise UserError(
                f"the training data have {size} records, fewer than one batch of {global_batch}; "
                "make DATALOADER.TRAIN_BATCH_SIZE smaller"
            )
        self.size, self.global_batch = size, global_batch
        self.rank, self.world, self.seed = rank, world, seed
        self.epoch, self.start = 0, 0

    @property
    def batch_size(self) -> int:
        """Records per step on this rank."""
        return self.global_batch // self.world

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch and how many records of this rank to pass over in it."""
        self.epoch, self.start = epoch, start

    def indices(self, epoch: int) -> np.ndarray:
        """This rank's record indices of an epoch in order, int64 ``(len(self),)``."""
        order = np.random.default_rng((self.seed, epoch)).permutation(self.size)
        batches = self.size // self.global_batch
        order = order[: batches * self.global_batch].reshape(batches, self.world, self.batch_size)
        return order[:, self.rank].reshape(-1)

    def __len__(self) -> int:
        return self.size // self.global_batch * self.batch_size

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        for index in self.indices(epoch)[self.start :].tolist():
            yield index, sample_seed(self.seed, epoch, index)


class EvalSampler(Sampler[int]):
    """Every record once: contiguous shards of nearly equal length, no duplicates.

    Args:
        size: Number of records.
        rank: This process.
        world: Number of processes.
    """

    def __init__(self, size: int, rank: int = 0, world: int = 1) -> None:
        self._shard = range(size * rank // world, size * (rank + 1) // world)

    def __len__(self) -> int:
        return len(self._shard)

    def __iter__(self) -> Iterator[int]:
        return iter(self._shard)


class ResumableBatchSampler(Sampler[list[Any]]):
    """Batches of what a sampler yields, startable in the middle of an epoch.

    Batches before the start are passed over as indices, no record of them is loaded. Without a
    call of :meth:`set_epoch` each new iteration is the next epoch.

    Args:
        sampler: Yields indices; its ``set_epoch`` is called where it has one.
        batch_size: Indices per batch.
        drop_last: Leave out an incomplete last batch.
    """

    def __init__(self, sampler: Sampler, batch_size: int, drop_last: bool) -> None:
        if batch_size < 1:
            raise UserError(f"a batch of {batch_size} records is impossible; give at least 1")
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last
        self._next_epoch, self._next_batch = 0, 0

    def __len__(self) -> int:
        full, rest = divmod(len(self.sampler), self.batch_size)
        return full + (1 if rest and not self.drop_last else 0)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """The next iteration is that of ``epoch``, from its batch ``start_batch`` on."""
        self._next_epoch, self._next_batch = epoch, start_batch

    def set_progress(self, batches_consumed: int) -> None:
        """The next iteration goes on after so many batches counted from the start of training."""
        self.set_epoch(*divmod(batches_consumed, max(len(self), 1)))

    def state_dict(self) -> dict[str, Any]:
        """Position of the next iteration and the seed of the order."""
        state = {"epoch": self._next_epoch, "start_batch": self._next_batch}
        if hasattr(self.sampler, "seed"):
            state["seed"] = self.sampler.seed
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where :meth:`state_dict` was taken."""
        if "seed" in state and hasattr(self.sampler, "seed"):
            self.sampler.seed = state["seed"]
        self.set_epoch(state["epoch"], state["start_batch"])

    def __iter__(self) -> Iterator[list[Any]]:
        epoch, start = self._next_epoch, self._next_batch
        self.set_epoch(epoch + 1)
        passed_over = start * self.batch_size
        if isinstance(self.sampler, TrainingSampler):
            self.sampler.set_epoch(epoch, passed_over)
            indices = iter(self.sampler)
        else:
            if hasattr(self.sampler, "set_epoch"):
                self.sampler.set_epoch(epoch)
            indices = islice(iter(self.sampler), passed_over, None)
        while batch := list(islice(indices, self.batch_size)):
            if len(batch) < self.batch_size and self.drop_last:
                return
            yield batch
