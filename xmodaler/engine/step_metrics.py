"""Losses of the training steps, kept on the device until somebody wants to read them."""

import math
from typing import Any

import torch

from xmodaler.utils import comm
from xmodaler.utils.errors import UserError
from xmodaler.utils.events import EventStorage


class NonFiniteLossError(UserError, FloatingPointError):
    """A loss became infinite or NaN; the message holds the iteration and every loss value."""


class StepMetrics:
    """Collects the scalars of every step without making the host wait for the device.

    A single process hands its scalars on to the storage at once, as tensors that are converted
    when they are read. Several processes keep theirs and average them over the ranks when
    :meth:`flush` is called, which moves all of them in one message.
    """

    def __init__(self) -> None:
        self._pending: list[tuple[int, float, dict[str, torch.Tensor | float]]] = []
        self._alone = comm.get_world_size() == 1

    def append(
        self,
        storage: EventStorage,
        scalars: dict[str, torch.Tensor | float],
        data_time: float,
    ) -> None:
        """Take the scalars of iteration ``storage.iter``."""
        scalars = {
            name: value.detach() if isinstance(value, torch.Tensor) else value
            for name, value in scalars.items()
        }
        self._pending.append((storage.iter, data_time, scalars))
        if self._alone:
            storage.put_scalar("data_time", data_time)
            for name, value in scalars.items():
                storage.put_scalar(name, value)

    def flush(self, storage: EventStorage) -> None:
        """Check all pending losses and, with several processes, average and store them.

        Collective: every rank calls it at the same iterations. Waits for the device once.

        Raises:
            NonFiniteLossError: A loss of some rank was infinite or NaN; raised on every rank.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        local = _to_floats(pending)
        per_rank = [local] if self._alone else comm.all_gather(local)
        for entries in zip(*per_rank, strict=True):
            _check_finite(entries)
        if self._alone:
            return
        now = storage.iter
        for entries in zip(*per_rank, strict=True):
            storage.iter = entries[0][0]
            storage.put_scalar("data_time", max(entry[1] for entry in entries))
            for name, value in _mean(entries).items():
                storage.put_scalar(name, value)
        storage.iter = now


def _to_floats(pending: list[tuple[int, float, dict[str, Any]]]) -> list[tuple]:
    """The pending entries as plain numbers, copied from the device in one piece."""
    tensors = [
        value.float().reshape(())
        for _, _, scalars in pending
        for value in scalars.values()
        if isinstance(value, torch.Tensor)
    ]
    numbers = iter(torch.stack(tensors).tolist()) if tensors else iter(())
    return [
        (
            iteration,
            data_time,
            {
                name: next(numbers) if isinstance(value, torch.Tensor) else float(value)
                for name, value in scalars.items()
            },
        )
        for iteration, data_time, scalars in pending
    ]


def _check_finite(entries: tuple[tuple[int, float, dict[str, float]], ...]) -> None:
    for rank, (iteration, _, scalars) in enumerate(entries):
        total = next((v for name, v in scalars.items() if name.endswith("total_loss")), 0.0)
        if math.isfinite(total):
            continue
        values = ", ".join(f"{name} = {value:g}" for name, value in scalars.items())
        where = f" on rank {rank}" if len(entries) > 1 else ""
        raise NonFiniteLossError(
            f"Loss became infinite or NaN at iteration={iteration}{where}: {values}; lower "
            f"SOLVER.BASE_LR, clip gradients (SOLVER.GRAD_CLIP), or look for bad features."
        )


def _mean(entries: tuple[tuple[int, float, dict[str, float]], ...]) -> dict[str, float]:
    """Mean over the ranks that have a scalar: tasks drawn per rank give different losses."""
    values: dict[str, list[float]] = {}
    for _, _, scalars in entries:
        for name, value in scalars.items():
            values.setdefault(name, []).append(value)
    return {name: sum(items) / len(items) for name, items in values.items()}
