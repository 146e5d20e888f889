"""From a command line to a comparison."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from xmodaler.config import CfgNode, load_config
from xmodaler.engine.benchmark.pairs import reads_pairs
from xmodaler.engine.benchmark.report import MODES, benchmark
from xmodaler.engine.benchmark.workload import Workload
from xmodaler.modeling import add_config
from xmodaler.utils.errors import UserError


def run(arguments: Namespace) -> dict[str, Any]:
    """Do what the command line of ``tools/benchmark.py`` asks for.

    Returns:
        The report of :func:`xmodaler.engine.benchmark.benchmark`.
    """
    torch.set_num_threads(arguments.threads)
    overrides = ["MODEL.DEVICE", arguments.device, "MODEL.WEIGHTS", "", *arguments.opts]
    cfg = _config(arguments.config_file, overrides)
    modes = _modes(arguments.mode, cfg)
    seconds = _seconds(arguments.reference_seconds, modes)
    workload = Workload.of_config(
        cfg,
        train_images=arguments.batch_size,
        captions=arguments.captions,
        decode_images=arguments.batch_size,
        beam_size=arguments.beam_size,
        steps=arguments.steps,
        seed=arguments.seed,
    )
    return benchmark(
        cfg,
        workload,
        name=Path(arguments.config_file).stem,
        modes=modes,
        repeats=arguments.repeats,
        against={Path(file).stem: _config(file, overrides) for file in arguments.against},
        peer=arguments.peer is not None,
        reference_seconds=seconds,
    )


def _modes(mode: str, cfg: CfgNode) -> tuple[str, ...]:
    """What to time; a model that generates nothing has no decoding."""
    possible = ("train",) if reads_pairs(cfg) else MODES
    if mode == "both":
        return possible
    if mode not in possible:
        raise UserError(
            f"--mode {mode}: INFERENCE.GENERATION_MODE is False, so this model generates nothing; "
            "use --mode train"
        )
    return (mode,)


def _config(config_file: str, overrides: Sequence[str]) -> CfgNode:
    cfg = load_config(config_file, overrides, add_config)
    cfg.freeze()
    return cfg


def _seconds(text: str, modes: Sequence[str]) -> dict[str, float]:
    if not text:
        return {}
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != len(modes) or min(values) <= 0:
        raise UserError(
            f"--reference-seconds is '{text}'; give one positive number for each of "
            f"{', '.join(modes)}, separated by a comma."
        )
    return dict(zip(modes, values, strict=True))
