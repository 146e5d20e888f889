"""Save and load a model together with whatever else a run needs to go on."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from xmodaler.utils import comm
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import PathManager, expand_path

from . import report
from .files import (
    arrays_to_tensors,
    check_complete,
    check_loadable,
    read_checkpoint,
    strip_wrapper_prefixes,
    unwrap,
)
from .rename import RenameRules, rename_keys
from .report import IncompatibleKeys
from .transformers_weights import ROW_TABLES, fit_rows

POINTER = "last_checkpoint"


class XmodalerCheckpointer:
    """Writes `{name}.pth` files of a run and reads weights of many kinds.

    A checkpoint is `{"model": state dict, <key>: state dict of a checkpointable, ..., **extras}`.
    It is written under a temporary name and renamed when it is on disk; only then does the text
    file `last_checkpoint`, which holds the name of the newest file, change. Whenever the process
    dies, there is a complete checkpoint to resume from.

    Args:
        model: The model; wrappers (DataParallel, DistributedDataParallel, `torch.compile`) are
            looked through, so that files hold plain names.
        save_dir: Folder of the run; with `""` nothing is written.
        save_to_disk: Whether this process writes; `None`: only rank 0 does.
        **checkpointables: Objects with `state_dict()` and `load_state_dict()`.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        **checkpointables: Any,
    ) -> None:
        self.model = unwrap(model)
        self.save_dir = expand_path(save_dir)
        self.save_to_disk = comm.is_main_process() if save_to_disk is None else save_to_disk
        self.checkpointables: dict[str, Any] = {}
        self.logger = logging.getLogger(__name__)
        self.path_manager = PathManager
        self._leftovers_removed = False
        for key, checkpointable in checkpointables.items():
            self.add_checkpointable(key, checkpointable)

    def add_checkpointable(self, key: str, obj: Any) -> None:
        """Save and load `obj` under `key` from now on.

        Raises:
            UserError: The key is taken, or the object cannot be saved.
        """
        if key in self.checkpointables or key == "model":
            raise UserError(f"The checkpointer has something called '{key}' already.")
        if not hasattr(obj, "state_dict") or not hasattr(obj, "load_state_dict"):
            raise UserError(
                f"A {type(obj).__name__} cannot go into checkpoints as '{key}'; it needs the "
                "methods state_dict and load_state_dict."
            )
        self.checkpointables[key] = obj

    def save(self, name: str, **kwargs: Any) -> None:
        """Write `{name}.pth` into `save_dir` and point `last_checkpoint` to it.

        Args:
            name: File name without folder and ending.
            **kwargs: Extra entries of the file: tensors, numbers, text, plain containers.

        Raises:
            UserError: The disk is full or cannot be written (older files are intact), or an
                entry could not be loaded again.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        if os.path.basename(name) != name or not name:
            raise UserError(f"A checkpoint cannot be called '{name}'; give a name without folders.")
        data = {"model": self.model.state_dict()}
        for key, obj in self.checkpointables.items():
            data[key] = obj.state_dict()
        data.update(kwargs)
        check_loadable(data)
        self._remove_leftovers()
        path = os.path.join(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        with atomic_write(path) as file:
            torch.save(data, file)
        self.tag_last_checkpoint(f"{name}.pth")

    def load(
        self,
        path: str,
        checkpointables: Iterable[str] | None = None,
        *,
        strict: bool = False,
        rename: str | RenameRules | None = None,
    ) -> dict[str, Any]:
        """Load a file into the model and the checkpointables.

        Weights that only the file or only the model has, or whose shapes differ, are skipped and
        listed in the log.

        Args:
            path: A checkpoint of this package or of X-modaler, a bare state dict, or a
                safetensors file; local or an address; a text model of Hugging Face, such as
                `transformers:bert-base-uncased` or a folder. `""` loads nothing.
            checkpointables: Keys to load besides the model; `None`: all that the file has.
            strict: Refuse a file that does not fit the model exactly.
            rename: Name of a rename table, or its rules; see :mod:`xmodaler.checkpoint.rename`.

        Returns:
            What the file holds beyond what was loaded (for example `iteration`).

        Raises:
            UserError: The file cannot be read, holds no weight of this model, or, with `strict`,
                does not fit; the model is then unchanged.
        """
        if not path:
            self.logger.info("No checkpoint found. Initializing model from scratch")
            return {}
        checkpoint = self._load_file(path)
        if rename is not None:
            checkpoint["model"] = rename_keys(checkpoint["model"], rename)
        return self._restore(path, checkpoint, checkpointables, strict)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Continue the run in `save_dir` if there is one, else start from the weights of `path`.

        If the newest checkpoint is damaged, the newest complete one before it is taken, and the
        log says so.

        Args:
            path: Weights to start from; `""` for none. Only the model is loaded from it.
            resume: Whether to look into `save_dir` at all.

        Returns:
            As :meth:`load`.

        Raises:
            UserError: There are checkpoints in `save_dir`, but none is complete.
        """
        if resume and self.has_checkpoint():
            return self._resume()
        return self.load(path, checkpointables=[])

    def has_checkpoint(self) -> bool:
        """Whether `save_dir` holds a checkpoint to resume from."""
        return bool(self.get_checkpoint_file())

    def get_checkpoint_file(self) -> str:
        """Path of the newest checkpoint, `""` if there is none."""
        if not self.save_dir:
            return ""
        try:
            with open(os.path.join(self.save_dir, POINTER), encoding="utf-8") as file:
                name = file.read().strip()
        except (OSError, UnicodeDecodeError):
            name = ""
        if name:
            return os.path.join(self.save_dir, name)
        # The process died between its first checkpoint and the pointer to it.
        periodic = glob.glob(os.path.join(glob.escape(self.save_dir), "*_Iter_*.pth"))
        return max(periodic, key=os.path.getmtime, default="")

    def get_all_checkpoint_files(self) -> list[str]:
        """Paths of all `.pth` files in `save_dir`, by name."""
        pattern = os.path.join(glob.escape(self.save_dir), "*.pth")
        return sorted(glob.glob(pattern)) if self.save_dir else []

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Make `last_checkpoint` name the given file of `save_dir`."""
        with atomic_write(os.path.join(self.save_dir, POINTER), "w") as file:
            file.write(last_filename_basename)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a file into a dict with the state dict under `model`; may be overridden."""
        return read_checkpoint(filename)

    def _load_model(self, checkpoint: dict[str, Any]) -> IncompatibleKeys:
        """Take the state dict out of `checkpoint` and load what fits; may be overridden."""
        state_dict = dict(checkpoint.pop("model"))
        own = self.model.state_dict(keep_vars=True)
        incompatible = report.with_table(report.compare(own, state_dict), own, state_dict)
        skipped = {key for key, _, _ in incompatible.incorrect_shapes}
        fitting = {key: value for key, value in state_dict.items() if key not in skipped}
        self.model.load_state_dict(fitting, strict=False)
        return incompatible

    def _convert_ndarray_to_tensor(self, state_dict: dict[str, Any]) -> None:
        """Turn numpy arrays into tensors, in place; may be overridden."""
        arrays_to_tensors(state_dict)

    def _log_incompatible_keys(self, incompatible: IncompatibleKeys) -> None:
        """Log what `_load_model` returned; may be overridden."""
        self.logger.warning(
            "Some weights do not fit: %s; the model keeps its initial values there.\n%s",
            report.summary(incompatible),
            incompatible.table,
        )

    def _restore(
        self,
        path: str,
        checkpoint: dict[str, Any],
        checkpointables: Iterable[str] | None,
        strict: bool = False,
    ) -> dict[str, Any]:
        state_dict = dict(checkpoint["model"])
        self._convert_ndarray_to_tensor(state_dict)
        state_dict = strip_wrapper_prefixes(state_dict)
        adapt = getattr(self.model, "adapt_weights", None)
        if adapt is not None:
            state_dict = adapt(state_dict)
        checkpoint["model"] = state_dict
        own = self.model.state_dict(keep_vars=True)
        fit_rows(state_dict, own, checkpoint.pop(ROW_TABLES, ()))
        self._check_fit(path, own, state_dict, strict)
        keys = list(self.checkpointables if checkpointables is None else checkpointables)
        if any(key in checkpoint for key in keys):
            self._check_sizes(path, own, state_dict)
        incompatible = self._load_model(checkpoint)
        loaded = len(own) - len(incompatible.missing_keys) - len(incompatible.incorrect_shapes)
        self.logger.info("Loaded %d of %d weights from %s", loaded, len(own), path)
        if incompatible:
            self._log_incompatible_keys(incompatible)
        for key in keys:
            if key not in checkpoint:
                self.logger.warning("%s holds no state of '%s'", path, key)
                continue
            self._load_checkpointable(path, key, checkpoint.pop(key))
        return checkpoint

    def _check_fit(
        self, path: str, own: Mapping[str, Any], state_dict: Mapping[str, Any], strict: bool
    ) -> None:
        if own and not any(key in own for key in state_dict):
            example = next(iter(state_dict), None)
            raise UserError(
                f"'{path}' holds no weight of this {type(self.model).__name__}: "
                + (f"its first is '{example}'" if example else "it is empty")
                + f", the model's '{next(iter(own))}'; it belongs to another model, or needs a "
                "rename table."
            )
        incompatible = report.compare(own, state_dict)
        if strict and incompatible:
            raise UserError(
                f"'{path}' does not fit this {type(self.model).__name__} exactly: "
                f"{report.summary(incompatible)}."
            )

    def _check_sizes(
        self, path: str, own: Mapping[str, Any], state_dict: Mapping[str, Any]
    ) -> None:
        """Refuse the training state of weights that have other shapes in this model."""
        reshaped = report.compare(own, state_dict).incorrect_shapes
        if reshaped:
            key, in_file, in_model = reshaped[0]
            raise UserError(
                f"The run of '{path}' cannot be continued, because {len(reshaped)} weights have "
                f"another shape now ('{key}' has {in_model}, in the file {in_file}); resume with "
                "its settings, or start anew with MODEL.WEIGHTS and another OUTPUT_DIR."
            )

    def _load_checkpointable(self, path: str, key: str, state: Any) -> None:
        try:
            self.checkpointables[key].load_state_dict(state)
        except UserError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"The state of '{key}' in '{path}' does not fit this run ({error}); to start anew "
                "from its weights alone, name the file in MODEL.WEIGHTS and do not resume."
            ) from error

    def _resume(self) -> dict[str, Any]:
        newest = self.get_checkpoint_file()
        others = [f for f in self.get_all_checkpoint_files() if f != newest]
        others.sort(key=os.path.getmtime, reverse=True)
        for path in [newest, *others]:
            try:
                checkpoint = self._read_complete(path, fallback=path != newest)
            except UserError as error:
                self.logger.warning("CHECKPOINT NOT USABLE: %s Trying the one before it.", error)
                continue
            if path != newest:
                self.logger.warning("RESUMING FROM AN OLDER CHECKPOINT: %s", path)
                if self.save_to_disk:
                    self.tag_last_checkpoint(os.path.basename(path))
            return self._restore(path, checkpoint, None)
        raise UserError(
            f"'{self.save_dir}' holds no complete checkpoint to resume from; remove its "
            f"'{POINTER}' file to start anew."
        )

    def _read_complete(self, path: str, fallback: bool) -> dict[str, Any]:
        check_complete(path)
        checkpoint = self._load_file(path)
        # Files of weights alone (such as the best model) cannot carry a run on.
        if fallback and self.checkpointables and not self.checkpointables.keys() & checkpoint:
            raise UserError(f"'{path}' holds weights but no training state.")
        return checkpoint

    def _remove_leftovers(self) -> None:
        """Delete the temporary files of saves that were killed."""
        if self._leftovers_removed:
            return
        self._leftovers_removed = True
        folder = glob.escape(self.save_dir)
        for pattern in (".*.pth.*.tmp", ".*_checkpoint.*.tmp"):
            for path in glob.glob(os.path.join(folder, pattern)):
                try:
                    os.unlink(path)
                except OSError as error:
                    self.logger.warning("Cannot remove the leftover %s: %s", path, error)
