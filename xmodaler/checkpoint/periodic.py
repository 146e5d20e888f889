"""When to write a checkpoint, how to call it, and which old ones to delete."""

from __future__ import annotations

import os
import re
from typing import Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import PathManager

from .checkpointer import XmodalerCheckpointer


class PeriodicCheckpointer:
    """Saves `{prefix}_{iteration:07d}` every so many iterations and `{prefix}_final` at the end.

    Args:
        checkpointer: Writes the files.
        period: Iterations between two files.
        max_iter: Length of the run; after its last iteration the final file is written.
        max_to_keep: How many periodic files to keep, those of earlier sittings of the same run
            included; `None` or -1 keeps all. The final file is never deleted.
        file_prefix: Start of every file name.

    Attributes:
        recent_checkpoints: Paths of the periodic files of this run, oldest first.
    """

    def __init__(
        self,
        checkpointer: XmodalerCheckpointer,
        period: int,
        max_iter: int | None = None,
        max_to_keep: int | None = None,
        file_prefix: str = "model",
    ) -> None:
        if period < 1:
            raise UserError(
                f"The checkpoint period (SOLVER.CHECKPOINT_PERIOD) is {period}; it must be >= 1."
            )
        if max_to_keep is not None and (max_to_keep < -1 or max_to_keep == 0):
            raise UserError(
                f"The number of checkpoints to keep is {max_to_keep}; it must be >= 1, or -1 (all)."
            )
        self.checkpointer = checkpointer
        self.period = int(period)
        self.max_iter = max_iter
        self.max_to_keep = None if max_to_keep == -1 else max_to_keep
        self.file_prefix = file_prefix
        self.recent_checkpoints: list[str] = []
        self.path_manager = PathManager
        self._scanned = False

    def step(self, iteration: int, **kwargs: Any) -> None:
        """Save if it is time.

        Args:
            iteration: Index of the iteration just done, from 0.
            **kwargs: Extra entries of the file.
        """
        self._step(f"{self.file_prefix}_{int(iteration):07d}", int(iteration), kwargs)

    def save(self, name: str, **kwargs: Any) -> None:
        """Save now, under a name of one's own; such files are never deleted."""
        self.checkpointer.save(name, **kwargs)

    def _step(self, name: str, iteration: int, extras: dict[str, Any]) -> None:
        extras = {"iteration": iteration, **extras}
        if (iteration + 1) % self.period == 0:
            self._find_earlier(iteration)
            self.checkpointer.save(name, **extras)
            self.recent_checkpoints.append(os.path.join(self.checkpointer.save_dir, f"{name}.pth"))
            self._delete_old()
        if self.max_iter is not None and iteration >= self.max_iter - 1:
            self.checkpointer.save(f"{self.file_prefix}_final", **extras)

    def _pattern(self) -> str:
        return rf"{re.escape(self.file_prefix)}_(\d+)\.pth"

    def _find_earlier(self, iteration: int) -> None:
        """List the files of earlier sittings: those of earlier iterations."""
        if self._scanned or self.max_to_keep is None:
            return
        self._scanned = True
        earlier = []
        for path in self.checkpointer.get_all_checkpoint_files():
            match = re.fullmatch(self._pattern(), os.path.basename(path))
            # A later iteration is of another run in the same folder: not ours to delete.
            if match and int(match[1]) < iteration:
                earlier.append((int(match[1]), path))
        self.recent_checkpoints = [path for _, path in sorted(earlier)]

    def _delete_old(self) -> None:
        if self.max_to_keep is None or not self.checkpointer.save_to_disk:
            return
        while len(self.recent_checkpoints) > self.max_to_keep:
            oldest = self.recent_checkpoints.pop(0)
            if os.path.exists(oldest):
                os.unlink(oldest)


class PeriodicEpochCheckpointer(PeriodicCheckpointer):
    """Like its parent, but files are called `{prefix}_Epoch_{epoch:05d}_Iter_{iteration:07d}`.

    The period still counts iterations.
    """

    def step(self, iteration: int, epoch: int, **kwargs: Any) -> None:
        """Save if it is time.

        Args:
            iteration: Index of the iteration just done, from 0.
            epoch: Epochs completed with it.
            **kwargs: Extra entries of the file.
        """
        name = f"{self.file_prefix}_Epoch_{int(epoch):05d}_Iter_{int(iteration):07d}"
        self._step(name, int(iteration), kwargs)

    def _pattern(self) -> str:
        return rf"{re.escape(self.file_prefix)}_Epoch_\d+_Iter_(\d+)\.pth"
