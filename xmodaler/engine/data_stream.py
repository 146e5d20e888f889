"""An endless stream of training batches whose position can be saved and restored."""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any

from xmodaler.datasets import bad_samples
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .rng import isolated_rng, stable_seed

logger = logging.getLogger(__name__)


class BatchStream:
    """Walks a loader epoch after epoch and knows where it stands.

    The order of an epoch depends on the seed and the epoch's number alone. A loader whose batch
    sampler has ``set_epoch(epoch, start_batch)`` is entered in mid-epoch without loading what came
    before; in any other loader the earlier batches are loaded and dropped.

    Args:
        loader: Yields batches; anything iterable that has a length.
        batches_per_epoch: Batches taken from a pass before the next one starts, at most
            ``len(loader)``.
        seed: Makes the order of loaders that draw it from the global generators reproducible.

    Attributes:
        loader: As given.
        epoch: Number of the current pass.
        batch: Batches consumed in it.
        data_time: Seconds spent waiting for batches since :meth:`reset_timer`.
    """

    def __init__(self, loader: Any, batches_per_epoch: int, seed: int) -> None:
        self.loader = loader
        self.batches_per_epoch = batches_per_epoch
        self.seed = seed
        self.epoch = 0
        self.batch = 0
        self.data_time = 0.0
        self._iterator: Iterator[Any] | None = None
        self._first: list[Any] = []

    def reset_timer(self) -> None:
        """Start to count ``data_time`` from zero."""
        self.data_time = 0.0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        start = time.perf_counter()
        if self.batch >= self.batches_per_epoch:
            self._next_epoch()
        if self._iterator is None:
            self._enter_epoch()
        try:
            batch = self._first.pop() if self._first else next(self._iterator)
        except StopIteration:
            # The loader promised more batches than it had, e.g. because records were bad.
            self._next_epoch()
            self._enter_epoch()
            batch = self._first.pop()
        batch = bad_samples.check(batch)
        self.batch += 1
        self.data_time += time.perf_counter() - start
        return batch

    def _next_epoch(self) -> None:
        self._iterator = None
        self.epoch, self.batch = self.epoch + 1, 0

    def _enter_epoch(self) -> None:
        """Open the loader at (epoch, batch), leaving the training's generators untouched."""
        skip = self._position_sampler()
        # Iterating a loader draws from the global generators (worker seeds, random samplers), some
        # of it only with the first batch. Seeded by epoch, a resumed run draws the same.
        with isolated_rng(stable_seed(self.seed, self.epoch, comm.get_rank())):
            self._iterator = iter(self.loader)
            if skip:
                logger.info("Passing over %d batches that were trained on before.", skip)
            try:
                for _ in range(skip):
                    next(self._iterator)
                # Behind skipped batches a mapper without a seed of its own must draw from the
                # restored generators, as it did in the run that was interrupted.
                self._first = [] if skip else [next(self._iterator)]
            except StopIteration:
                raise UserError(
                    f"The training loader ended after fewer than {skip + 1} batches; "
                    "DATALOADER.TRAIN_BATCH_SIZE may be larger than the training data."
                ) from None

    def _position_sampler(self) -> int:
        """Tell the sampler the epoch; returns how many batches have to be skipped by loading."""
        batch_sampler = getattr(self.loader, "batch_sampler", None)
        if hasattr(batch_sampler, "set_epoch"):
            batch_sampler.set_epoch(self.epoch, start_batch=self.batch)
            return 0
        sampler = getattr(self.loader, "sampler", None)
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(self.epoch)
        return self.batch

    def state_dict(self) -> dict[str, Any]:
        """Position, seed, and the state of the batch sampler where it has one."""
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "batches_per_epoch": self.batches_per_epoch,
            "seed": self.seed,
        }
        batch_sampler = getattr(self.loader, "batch_sampler", None)
        if hasattr(batch_sampler, "state_dict"):
            state["batch_sampler"] = batch_sampler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken."""
        self._iterator, self._first = None, []
        self.seed = state["seed"]
        self.epoch, self.batch = state["epoch"], state["batch"]
        if state["batches_per_epoch"] != self.batches_per_epoch:
            # Other batch size, process count or data: the position means nothing any more.
            logger.warning(
                "An epoch had %d batches when the checkpoint was written and has %d now; "
                "training continues at the start of the next epoch of the data.",
                state["batches_per_epoch"],
                self.batches_per_epoch,
            )
            self.epoch, self.batch = self.epoch + 1, 0
        batch_sampler = getattr(self.loader, "batch_sampler", None)
        if "batch_sampler" in state and hasattr(batch_sampler, "load_state_dict"):
            batch_sampler.load_state_dict(state["batch_sampler"])


class BatchStreams:
    """Streams of several loaders side by side, each with its own epochs.

    Args:
        streams: One a loader.
    """

    def __init__(self, streams: Sequence[BatchStream]) -> None:
        self.streams = list(streams)

    def __iter__(self) -> Iterator[BatchStream]:
        """The streams; batches are taken from each of them."""
        return iter(self.streams)

    @property
    def data_time(self) -> float:
        """Seconds spent waiting for batches since :meth:`reset_timer`."""
        return sum(stream.data_time for stream in self.streams)

    def reset_timer(self) -> None:
        """Start to count ``data_time`` from zero."""
        for stream in self.streams:
            stream.reset_timer()

    def state_dict(self) -> dict[str, Any]:
        """The state of every stream."""
        return {"streams": [stream.state_dict() for stream in self.streams]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where :meth:`state_dict` was taken."""
        for stream, own in zip(self.streams, state["streams"], strict=True):
            stream.load_state_dict(own)


def loaders_in(loader: Any) -> list[Any]:
    """The loaders that a training takes its batches from.

    A list of batches is one loader, a list of anything else several.
    """
    if not isinstance(loader, list | tuple):
        return [loader]
    are_batches = any(isinstance(each, dict | list | tuple) for each in loader)
    return [loader] if are_batches else list(loader)


def initial_seed(seed: int) -> int:
    """``seed`` where the user fixed one, else a random number that all ranks share."""
    return seed if seed >= 0 else comm.shared_random_seed()
