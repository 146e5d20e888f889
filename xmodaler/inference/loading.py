"""From an output folder or a weights file to a captioner."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from xmodaler.checkpoint import XmodalerCheckpointer
from xmodaler.config import CfgNode
from xmodaler.inference.captioner import Captioner
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["load", "load_run_config"]

CONFIG, VOCABULARY = "config.yaml", "vocabulary.txt"
_SUFFIXES = (".pth", ".safetensors", ".pt", ".bin", ".pkl")


def load(
    path: str | os.PathLike[str],
    device: str = "auto",
    config: str | os.PathLike[str] | CfgNode | None = None,
    precision: str = "fp32",
) -> Captioner:
    """Loads a trained captioner.

    Args:
        path: The output folder of a training (its config, its vocabulary and its best weights,
            else the final or the last ones, are taken), or a weights file; the config and the
            vocabulary of a file are looked for beside it.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"mps"``, or as torch names it.
        config: A config (file) to use in place of the one found.
        precision: ``"fp32"``, ``"bf16"`` or ``"fp16"``.

    Returns:
        The captioner.

    Raises:
        UserError: Something is missing or does not fit together; the message says what.
    """
    from xmodaler.modeling import build_model
    from xmodaler.utils.env import resolve_device

    folder, weights = _locate(Path(expand_path(os.fspath(path))))
    cfg = load_run_config(folder, config)
    resolved = resolve_device(device)
    cfg.MODEL.DEVICE = str(resolved)
    model = build_model(cfg)
    if getattr(model, "greedy_decoder", None) is None:
        raise UserError(
            f"the {cfg.MODEL.META_ARCHITECTURE} of '{path}' generates no sentences: "
            "MODEL.DECODER or DECODE_STRATEGY.NAME is empty in its config"
        )
    _CompleteCheckpointer(model).load(str(weights), checkpointables=[])
    return Captioner(model.to(resolved), cfg, precision, str(weights))


def load_run_config(
    folder: str | os.PathLike[str], config: str | os.PathLike[str] | CfgNode | None = None
) -> CfgNode:
    """The config of a run, set up for using the model.

    The vocabulary kept in the folder is preferred to the one that the config names, and nothing is
    downloaded to initialise weights that are loaded anyway.

    Args:
        folder: Holds ``config.yaml`` and, usually, ``vocabulary.txt``.
        config: A config (file) in place of that of the folder.
    """
    from xmodaler.config import load_config
    from xmodaler.modeling import add_config

    folder = Path(folder)
    if isinstance(config, CfgNode):
        cfg = config.clone()
        cfg.defrost()
    else:
        file = Path(expand_path(os.fspath(config))) if config else folder / CONFIG
        if not file.is_file():
            raise UserError(
                f"the config '{file}' does not exist; "
                + ("check the path" if config else "name one: load(..., config=FILE)")
            )
        cfg = load_config(str(file), (), add_config)
    vocabulary = folder / VOCABULARY
    if vocabulary.is_file():
        cfg.INFERENCE.VOCAB = str(vocabulary)
    if "TIMM" in cfg.MODEL:
        cfg.MODEL.TIMM.PRETRAINED = False
        cfg.MODEL.TIMM.WEIGHTS = ""
    return cfg


def _locate(path: Path) -> tuple[Path, Path]:
    """The folder of the run and its weights file."""
    if path.is_file():
        return path.parent, path
    if not path.is_dir():
        raise UserError(f"'{path}' does not exist; give an output folder or a weights file")
    for pointer in ("best_checkpoint", "model_best.pth", "model_final.pth", "last_checkpoint"):
        file = path / pointer
        if file.suffix != ".pth" and file.is_file():
            name = file.read_text(encoding="utf-8", errors="replace").strip()
            file = path / name if name and "\0" not in name else file
        if file.suffix in _SUFFIXES and file.is_file():
            return path, file
    found = [file for file in path.iterdir() if file.suffix in _SUFFIXES and file.is_file()]
    if not found:
        raise UserError(
            f"'{path}' holds no weights ({', '.join(_SUFFIXES)}); give the output folder of a "
            "training, or a weights file"
        )
    return path, max(found, key=lambda file: (file.stat().st_mtime, file.name))


class _CompleteCheckpointer(XmodalerCheckpointer):
    """Refuses weights that leave a part of the model at its random initial values."""

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        if incompatible.missing_keys or incompatible.incorrect_shapes:
            raise UserError(
                f"the weights do not fit the config: {len(incompatible.missing_keys)} of the "
                f"model's weights are missing and {len(incompatible.incorrect_shapes)} have "
                f"another shape, such as {_first(incompatible)}; is this their config?"
            )
        super()._log_incompatible_keys(incompatible)


def _first(incompatible: Any) -> str:
    if incompatible.missing_keys:
        return f"'{incompatible.missing_keys[0]}'"
    name, *shapes = incompatible.incorrect_shapes[0]
    return f"'{name}' ({' and '.join(str(tuple(shape)) for shape in shapes)})"
