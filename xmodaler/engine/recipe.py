"""Trainings one after the other, each from the best weights of the one before it."""

import argparse
import copy
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from xmodaler.config import CfgNode
from xmodaler.utils import comm
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path
from xmodaler.utils.logger import log_files_of_block

from .build import ENGINE_REGISTRY

__all__ = [
    "BEST",
    "RECORD",
    "Stage",
    "best_weights",
    "check_single_run",
    "run_recipe",
    "stages_of",
]

logger = logging.getLogger(__name__)

#: The value of MODEL.WEIGHTS that stands for the best weights of the stage before.
BEST = "best"
#: File in the recipe's folder that says which stages have begun and ended.
RECORD = "recipe.json"

# What belongs to the recipe as a whole: where it begins, and where it writes.
_OF_THE_RECIPE = ("MODEL.WEIGHTS", "OUTPUT_DIR")
_NUMBERED = re.compile(r"(\d+):(.+)", re.DOTALL)


@dataclass
class Stage:
    """One training of a recipe.

    Attributes:
        number: From 1.
        config_file: As given.
        cfg: Its config; its ``OUTPUT_DIR`` is a folder of its own in that of the recipe.
    """

    number: int
    config_file: str
    cfg: CfgNode

    @property
    def folder(self) -> str:
        """Where the stage writes."""
        return self.cfg.OUTPUT_DIR


@dataclass
class _Progress:
    started: int = 0  # stages that have begun
    finished: int = 0


def stages_of(
    args: argparse.Namespace, load: Callable[[str, Sequence[str]], CfgNode]
) -> list[Stage]:
    """The trainings that ``--config-file`` and every ``--then`` ask for.

    Overrides hold for all stages, those with a number (``2:SOLVER.EPOCH 5``) for that one.
    ``OUTPUT_DIR`` is the folder of the recipe, in which the stages get theirs, called after number
    and config; ``MODEL.WEIGHTS`` is what the first stage starts from. Later stages start from the
    best weights of the one before, unless their config names others.

    Args:
        args: The command line.
        load: Gives the config of a file and overrides.

    Raises:
        UserError: A config is wrong, or the command line asks for what a recipe cannot do.
    """
    files = [args.config_file, *args.then]
    if not args.config_file:
        raise UserError("--then follows a training, which --config-file must name.")
    if args.eval_only:
        raise UserError(
            "--then trains and --eval-only does not; evaluate a stage alone with the config.yaml "
            "and the weights in its folder."
        )
    stages: list[Stage] = []
    for number, config_file in enumerate(files, start=1):
        cfg = load(config_file, _overrides(args.opts, number, len(files)))
        ENGINE_REGISTRY.get(cfg.ENGINE.NAME)
        if number == 1:
            root = expand_path(cfg.OUTPUT_DIR)
            _check_has_no_stage_before(cfg, "the first stage")
        elif not cfg.MODEL.WEIGHTS:
            cfg.MODEL.WEIGHTS = BEST
        cfg.OUTPUT_DIR = os.path.join(root, f"{number}_{_name(config_file)}")
        stages.append(Stage(number, config_file, cfg))
    return stages


def run_recipe(
    args: argparse.Namespace,
    stages: Sequence[Stage],
    train: Callable[[CfgNode, argparse.Namespace], dict[str, Any]],
) -> dict[str, Any]:
    """Train the stages in this process; with ``--resume`` go on where the recipe stopped.

    Args:
        args: The command line.
        stages: From :func:`stages_of`.
        train: Trains one config and returns its metrics.

    Returns:
        The metrics of the last stage; empty if it had ended before.
    """
    root = os.path.dirname(stages[0].folder)
    progress = _read_progress(root, stages) if args.resume else _Progress()
    # Every rank has read the record before one of them changes it.
    comm.synchronize()
    metrics: dict[str, Any] = {}
    for stage in stages:
        if stage.number <= progress.finished:
            logger.info("Stage %d has ended: %s", stage.number, stage.folder)
            continue
        if stage.cfg.MODEL.WEIGHTS == BEST:
            stage.cfg.MODEL.WEIGHTS = best_weights(stages[stage.number - 2].folder)
        own = copy.copy(args)
        own.config_file = stage.config_file
        # Checkpoints of an earlier recipe in the same folder are none of this one.
        own.resume = stage.number <= progress.started
        progress.started = stage.number
        _write_progress(root, stages, progress)
        with log_files_of_block():
            metrics = train(stage.cfg, own)
        comm.synchronize()
        progress.finished = stage.number
        _write_progress(root, stages, progress)
    return metrics


def best_weights(folder: str) -> str:
    """The best weights in the output folder of a training, else the last ones.

    Raises:
        UserError: It holds neither.
    """
    pointer = os.path.join(folder, "best_checkpoint")
    names = ["model_final.pth"]
    if os.path.isfile(pointer):
        with open(pointer, encoding="utf-8") as file:
            names.insert(0, file.read().strip())
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            if len(names) == 1:
                logger.warning(
                    "No best weights in '%s' (SOLVER.BEST_METRIC was ''): taking the last.", folder
                )
            return path
    raise UserError(
        f"'{folder}' holds neither best nor final weights for the next stage; has its training "
        "ended?"
    )


def check_single_run(cfg: CfgNode) -> None:
    """Refuse what means something only in a recipe.

    Raises:
        UserError: MODEL.WEIGHTS asks for the best weights of a stage that there is not.
    """
    _check_has_no_stage_before(cfg, "this run")


def _check_has_no_stage_before(cfg: CfgNode, what: str) -> None:
    if cfg.MODEL.WEIGHTS == BEST and not os.path.exists(BEST):
        raise UserError(
            f"MODEL.WEIGHTS is '{BEST}', but {what} has no training before it; name a file of "
            "weights, or give this config behind --then."
        )


def _overrides(opts: Sequence[str], number: int, count: int) -> list[str]:
    """The overrides of a stage; numbered ones come last, so that they win."""
    common: list[str] = []
    own: list[str] = []
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        match = _NUMBERED.fullmatch(key)
        if match is None:
            if number == 1 or key not in _OF_THE_RECIPE:
                common += [key, value]
        elif not 1 <= int(match[1]) <= count:
            raise UserError(f"the override {key} is for stage {match[1]}, but there are {count}.")
        elif int(match[1]) == number:
            if match[2] == "OUTPUT_DIR":
                raise UserError(f"{key}: stages write into folders in OUTPUT_DIR, without number.")
            own += [match[2], value]
    return common + own


def _write_progress(root: str, stages: Sequence[Stage], progress: _Progress) -> None:
    if not comm.is_main_process():
        return
    content = {"configs": [stage.config_file for stage in stages], **asdict(progress)}
    with atomic_write(os.path.join(root, RECORD), "w") as file:
        json.dump(content, file)


def _read_progress(root: str, stages: Sequence[Stage]) -> _Progress:
    """How far the recipe in a folder has got.

    Raises:
        UserError: It is another recipe, or the record is damaged.
    """
    path = os.path.join(root, RECORD)
    if not os.path.isfile(path):
        logger.info("No recipe in '%s' to resume.", root)
        return _Progress()
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        configs = [_name(name) for name in content["configs"]]
        progress = _Progress(int(content["started"]), int(content["finished"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"'{path}' is damaged ({error!r}); start anew without --resume.") from None
    begun = configs[: progress.started]
    if begun != [_name(stage.config_file) for stage in stages[: progress.started]]:
        raise UserError(
            f"'{root}' holds another recipe ({' then '.join(configs)}); resume that one, or choose "
            "another OUTPUT_DIR."
        )
    return progress


def _name(config_file: str) -> str:
    return os.path.splitext(os.path.basename(config_file))[0]
