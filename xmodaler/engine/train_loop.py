"""The training loop and its hooks: what every trainer shares, whatever it trains."""

import logging
import weakref
from collections import Counter
from collections.abc import Iterable
from typing import Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.events import EventStorage

logger = logging.getLogger(__name__)


class HookBase:
    """Something that happens around the training steps.

    A trainer calls its hooks in the order in which they were registered::

        hook.before_train()
        for iteration in range(start_iter, max_iter):
            hook.before_step()
            trainer.run_step()
            hook.after_step()
        hook.after_train()

    Attributes:
        trainer: A weak reference to the trainer, set by :meth:`TrainerBase.register_hooks`.
    """

    trainer: "TrainerBase" = None

    def before_train(self) -> None:
        """Called once before the first iteration."""

    def after_train(self) -> None:
        """Called once after the last iteration, also when training failed or was interrupted."""

    def before_step(self) -> None:
        """Called before every iteration."""

    def after_step(self) -> None:
        """Called after every iteration."""

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run has to know of this hook; stored in checkpoints."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned in the run that is resumed."""


class TrainerBase:
    """Owns the loop and the hooks, and assumes nothing of model, data or optimizer.

    Attributes:
        iter: The current iteration, 0-based.
        start_iter: The first iteration of this process.
        max_iter: The iteration at which training ends.
        storage: The :class:`EventStorage` of the running training.
        stopped_early: A hook or a signal ended training before ``max_iter``.
    """

    def __init__(self) -> None:
        self._hooks: list[HookBase] = []
        self.iter = 0
        self.start_iter = 0
        self.max_iter = 0
        self.storage: EventStorage | None = None
        self.stopped_early = False

    def register_hooks(self, hooks: Iterable[HookBase | None]) -> None:
        """Append ``hooks`` to those the trainer calls; ``None`` entries are skipped."""
        added = [hook for hook in hooks if hook is not None]
        for hook in added:
            if not isinstance(hook, HookBase):
                raise AssertionError(f"A hook must be a HookBase, got {type(hook).__name__}.")
            # A strong reference would be a cycle: the trainer, hence the model, would outlive it.
            hook.trainer = weakref.proxy(self)
        self._hooks.extend(added)

    def train(self, start_iter: int, max_iter: int) -> None:
        """Run iterations ``start_iter`` to ``max_iter - 1``.

        ``after_train`` runs in every case; an exception is logged and raised again.
        """
        logger.info("Starting training from iteration %d", start_iter)
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        self.stopped_early = False
        with EventStorage(start_iter) as self.storage:
            try:
                self.before_train()
                for self.iter in range(start_iter, max_iter):
                    self.storage.iter = self.iter
                    self.before_step()
                    self.run_step()
                    self.after_step()
                    if self.should_stop():
                        self.stopped_early = self.iter + 1 < max_iter
                        break
                if max_iter > start_iter:
                    # Hooks tell a completed training by iter == max_iter in after_train.
                    self.iter += 1
            except UserError as error:
                logger.error("Training stopped at iteration %d: %s", self.iter, error)
                raise
            except Exception:
                logger.exception("Exception during training at iteration %d:", self.iter)
                raise
            finally:
                self.storage.iter = self.iter
                self.after_train()

    def should_stop(self) -> bool:
        """Whether to leave the loop after the current iteration."""
        return False

    def before_train(self) -> None:
        """Call ``before_train`` of every hook."""
        for hook in self._hooks:
            hook.before_train()

    def after_train(self) -> None:
        """Call ``after_train`` of every hook."""
        self.storage.iter = self.iter
        for hook in self._hooks:
            hook.after_train()

    def before_step(self) -> None:
        """Call ``before_step`` of every hook."""
        for hook in self._hooks:
            hook.before_step()

    def after_step(self) -> None:
        """Call ``after_step`` of every hook."""
        for hook in self._hooks:
            hook.after_step()

    def run_step(self) -> None:
        """One iteration of training."""
        raise NotImplementedError(f"{type(self).__name__} must define run_step().")

    def state_dict(self) -> dict[str, Any]:
        """The iteration, and the state of every hook that has one."""
        state: dict[str, Any] = {"iteration": self.iter}
        hooks = {key: hook.state_dict() for key, hook in self._keyed_hooks()}
        hooks = {key: value for key, value in hooks.items() if value}
        if hooks:
            state["hooks"] = hooks
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.iter = state_dict["iteration"]
        self.load_hook_states(state_dict.get("hooks", {}))

    def load_hook_states(self, states: dict[str, Any]) -> None:
        """Give each hook its state; those of hooks that are not in use are named in the log."""
        states = dict(states)
        for key, hook in self._keyed_hooks():
            if key in states:
                hook.load_state_dict(states.pop(key))
        for key in states:
            logger.warning("The checkpoint has a state for hook '%s', which is not in use.", key)

    def _keyed_hooks(self) -> list[tuple[str, HookBase]]:
        """Every hook under its class name; later ones of a class get ``:1``, ``:2``, ..."""
        seen: Counter[str] = Counter()
        keyed = []
        for hook in self._hooks:
            name = type(hook).__qualname__
            keyed.append((f"{name}:{seen[name]}" if seen[name] else name, hook))
            seen[name] += 1
        return keyed
