"""A run from its command line: parts of the user, config, processes, training or evaluation."""

import argparse
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterable
from typing import Any

from xmodaler.config import CfgNode, load_config
from xmodaler.modeling import add_config
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .build import build_engine
from .defaults import default_setup
from .hooks.evaluation import flatten_metrics, log_metrics
from .launch import launch
from .recipe import Stage, check_single_run, run_recipe, stages_of

logger = logging.getLogger(__name__)


def launch_run(args: argparse.Namespace) -> dict[str, Any] | None:
    """Start the processes that the command line asks for and run in each of them.

    Args:
        args: From :func:`~xmodaler.engine.default_argument_parser`.

    Returns:
        The metrics, if the run took place in this process.
    """
    # Read here once, so that a mistake in it is reported once, and before anything is started.
    if _is_recipe(args):
        cfg = load_stages(args)[0].cfg
    else:
        cfg = load_run_config(args)
        check_single_run(cfg)
    return launch(
        run,
        args.num_gpus,
        num_machines=args.num_machines,
        machine_rank=args.machine_rank,
        dist_url=args.dist_url,
        args=(args,),
        device=cfg.MODEL.DEVICE,
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Train, or with ``--eval-only`` evaluate, in this process.

    Returns:
        The metrics of the training (with ``--then``: of the last one), or of the last evaluation.
    """
    if _is_recipe(args):
        return run_recipe(args, load_stages(args), run_config)
    return run_config(load_run_config(args), args)


def run_config(cfg: CfgNode, args: argparse.Namespace) -> dict[str, Any]:
    """Train or evaluate what one config describes; see :func:`run`."""
    cfg.OUTPUT_DIR = expand_path(cfg.OUTPUT_DIR)
    cfg.freeze()
    default_setup(cfg, args)
    trainer = build_engine(cfg)
    trainer.resume_or_load(resume=args.resume)
    return evaluate_only(cfg, trainer) if args.eval_only else trainer.train()


def load_run_config(args: argparse.Namespace) -> CfgNode:
    """Import the user's modules and merge the config file and the overrides."""
    import_modules(args.imports)
    return load_config(args.config_file, args.opts, add_config)


def load_stages(args: argparse.Namespace) -> list[Stage]:
    """Import the user's modules and read the configs of a recipe."""
    import_modules(args.imports)
    return stages_of(args, lambda file, opts: load_config(file, opts, add_config))


def _is_recipe(args: argparse.Namespace) -> bool:
    return bool(getattr(args, "then", ()))


def evaluate_only(cfg: CfgNode, trainer: Any) -> dict[str, Any]:
    """Evaluate on the validation and then the test data, where the config names such data.

    Returns:
        The result of the last evaluation.
    """
    result: dict[str, Any] = {}
    found = False
    for stage in ("val", "test"):
        loader = getattr(trainer, f"{stage}_data_loader")
        if loader is None:
            continue
        found = True
        evaluator = getattr(trainer, f"{stage}_evaluator")
        result = trainer.test(cfg, trainer.model, loader, evaluator, -1)
        if comm.is_main_process():
            log_metrics(stage, -1, flatten_metrics(result, stage))
    if not found:
        raise UserError(
            "--eval-only needs data, but DATASETS.VAL and DATASETS.TEST are ''; name a dataset "
            "class in one of them."
        )
    return result


def import_modules(names: Iterable[str]) -> None:
    """Import modules that register parts, by dotted name or as ``.py`` files.

    Raises:
        UserError: There is no such module or file.
    """
    for name in names:
        if name.endswith(".py"):
            _import_file(name)
            continue
        # A script's own folder is on the path, the one it was started from is not.
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
                raise
            raise UserError(
                f"--import {name}: there is no module of this name in {os.getcwd()} or among the "
                "installed packages."
            ) from error


def _import_file(path: str) -> None:
    name = os.path.splitext(os.path.basename(path))[0]
    if os.path.abspath(path) == os.path.abspath(getattr(sys.modules.get(name), "__file__", "")):
        # Importing it once more would register its parts twice.
        return
    if not os.path.isfile(path):
        raise UserError(f"--import {path}: there is no such file.")
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
