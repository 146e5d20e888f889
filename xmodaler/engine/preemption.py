"""Ending a run on SIGTERM or Ctrl-C: finish the iteration, save, leave."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from xmodaler.utils import comm


class TrainingInterrupted(SystemExit):
    """Training ended early on a signal, after its checkpoint was written.

    The exit code is that of a process ended by the signal: 143 for SIGTERM, 130 for SIGINT.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)


class PatientWorker:
    """Lets a loader's worker go on for a while after signals that were sent to every process.

    Terminals and schedulers signal workers too; were these to end at once, the main process could
    not finish its iteration. A worker initialiser: runs another one, if there is one, afterwards.

    Args:
        initialiser: The loader's own ``worker_init_fn``.
    """

    GRACE_SECONDS = 120

    def __init__(self, initialiser: Callable[[int], None] | None) -> None:
        self.initialiser = initialiser

    def __call__(self, worker_id: int) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        # Not ignored for ever: it is also how the main process ends a worker that is stuck.
        signal.signal(signal.SIGTERM, lambda *_: signal.alarm(self.GRACE_SECONDS))
        if self.initialiser is not None:
            self.initialiser(worker_id)

    @classmethod
    def install(cls, loader: Any) -> Any:
        """Make the workers of a ``DataLoader`` patient; any other loader stays as it is.

        Of several loaders, each is seen to.
        """
        for each in loader if isinstance(loader, list | tuple) else getattr(loader, "loaders", ()):
            cls.install(each)
        if isinstance(loader, DataLoader) and not isinstance(loader.worker_init_fn, cls):
            loader.worker_init_fn = cls(loader.worker_init_fn)
        return loader


class StopRequest:
    """Turns SIGTERM, and the first SIGINT, into a request that all ranks agree on.

    A context manager around the loop. A second SIGINT interrupts at once. Signals may reach the
    ranks at different iterations, so :meth:`agreed` exchanges a flag; the exchange runs beside the
    next iteration, hence several processes stop one iteration later and never wait for it.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signum = 0
        self._previous: dict[int, object] = {}
        self._pending: tuple[dist.Work, torch.Tensor] | None = None
        self._group: dist.ProcessGroup | None = None

    def __enter__(self) -> "StopRequest":
        if comm.get_world_size() > 1:
            # The flag lives on the CPU: reading one from the device would stall the step.
            self._group = comm.cpu_group()
        # Python delivers signals to the main thread only, and only it may install handlers.
        if threading.current_thread() is threading.main_thread():
            for signum in self.SIGNALS:
                self._previous[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        if self._pending is not None and exc_info[0] is None:
            self._pending[0].wait()
        self._pending = None

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self.signum == signal.SIGINT:
            raise KeyboardInterrupt
        self.signum = signum
        # Not through logging: the signal may have come while a log line was being written.
        name = signal.Signals(signum).name
        os.write(2, f"{name} received: saving a checkpoint after this iteration.\n".encode())

    def agreed(self) -> bool:
        """Whether to stop after this iteration; every rank calls it once per iteration."""
        if comm.get_world_size() == 1:
            return self.signum != 0
        if self._pending is not None:
            work, flag = self._pending
            work.wait()
            self._pending = None
            if flag.item():
                self.signum = int(flag.item())
                return True
        flag = torch.tensor(self.signum)
        work = dist.all_reduce(flag, op=dist.ReduceOp.MAX, group=self._group, async_op=True)
        self._pending = (work, flag)
        return False
