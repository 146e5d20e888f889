"""What a schedule remembers between two sittings of a run."""

from __future__ import annotations

from typing import Any

PROGRESS = ("last_epoch", "_step_count", "base_lrs", "_last_lr")


class ProgressStateMixin:
    """A state dict that says how far a schedule has come, not what it looks like.

    Every schedule here is a function of the step, so the step and the base rates are enough to
    go on exactly. The shape (length, milestones, ...) comes from the config: a run resumed with
    a larger `SOLVER.EPOCH` follows the longer schedule. States saved by torch's own classes or
    by X-modaler load too.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the step count and the base and current learning rates."""
        return {name: self.__dict__[name] for name in PROGRESS}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue where the saved schedule stopped."""
        self.__dict__.update({name: state_dict[name] for name in PROGRESS if name in state_dict})
