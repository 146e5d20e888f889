"""Running a comparison and writing it down."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from xmodaler.config import CfgNode
from xmodaler.engine.benchmark.measure import (
    Run,
    interleave,
    peak_memory,
    process_memory,
    summarise,
)
from xmodaler.engine.benchmark.systems import System, build_system
from xmodaler.engine.benchmark.workload import Workload
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError

MODES = ("train", "decode")
MEGABYTE = 2**20


def benchmark(
    cfg: CfgNode,
    workload: Workload,
    *,
    name: str,
    modes: Sequence[str] = MODES,
    repeats: int = 5,
    against: Mapping[str, CfgNode] | None = None,
    peer: bool = False,
    reference_seconds: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """Time a config, alone or in turns with others.

    Args:
        cfg: The config to time.
        workload: Sizes of the runs.
        name: Of the config in the report.
        modes: Which of ``"train"`` and ``"decode"``.
        repeats: Timed runs of each system; one more goes first untimed.
        against: Other configs by name, timed on the same sizes.
        peer: Also time a ``transformers`` encoder-decoder of the same sizes.
        reference_seconds: CPU seconds of one run of another system, by mode, to compare with.

    Returns:
        ``protocol``, and for every mode ``systems`` (seconds, rates, memory), ``faster_than``
        (paired ratios: how many times the first system is faster than each other one) and
        ``faster_than_reference``.
    """
    systems: list[System] = [build_system(name, cfg, workload)]
    for other_name, other in (against or {}).items():
        if other_name == name:
            other_name += " (2)"
        systems.append(build_system(other_name, other, workload))
    if peer:
        from xmodaler.engine.benchmark.transformers_peer import TransformersPeer

        systems.append(TransformersPeer("transformers", cfg, workload))
    result: dict[str, Any] = {
        "protocol": {
            **asdict(workload),
            "repeats": repeats,
            "threads": torch.get_num_threads(),
            "device": str(systems[0].device),
            "precision": cfg.SOLVER.PRECISION,
            "torch": torch.__version__,
            "machine": platform.machine(),
        }
    }
    for mode in modes:
        result[mode] = _compare(systems, mode, repeats)
        if reference_seconds and mode in reference_seconds:
            seconds = [run["cpu"] for run in result[mode]["systems"][name]["runs"]]
            ratios = [reference_seconds[mode] / value for value in seconds]
            result[mode]["faster_than_reference"] = summarise(ratios)
    return result


def _compare(systems: Sequence[System], mode: str, repeats: int) -> dict[str, Any]:
    if mode == "decode":
        for system in systems:
            _check_steps(system)
    tasks: dict[str, Callable[[], Any]] = {s.name: getattr(s, mode) for s in systems}
    runs = interleave(tasks, repeats, systems[0].device)
    first = systems[0].name
    return {
        # Read now, for recording allocations takes memory too.
        "process_mb": process_memory() / MEGABYTE,
        "systems": {s.name: _figures(s, mode, runs[s.name]) for s in systems},
        "faster_than": {
            s.name: {
                clock: summarise(
                    [
                        getattr(other, clock) / getattr(own, clock)
                        for own, other in zip(runs[first], runs[s.name], strict=True)
                    ]
                )
                for clock in ("cpu", "wall")
            }
            for s in systems[1:]
        },
    }


def _check_steps(system: System) -> None:
    ids = system.decode()
    expected = (system.workload.decode_images, system.workload.steps)
    if tuple(ids.shape) != expected or (ids == 0).any():
        raise UserError(
            f"{system.name} did not generate {expected[1]} words for each of {expected[0]} "
            "pictures, so its time cannot be compared."
        )


def _figures(system: System, mode: str, runs: list[Run]) -> dict[str, Any]:
    workload = system.workload
    cpu, wall = summarise([r.cpu for r in runs]), summarise([r.wall for r in runs])
    if mode == "train":
        amounts = {"steps": 1, "captions": workload.train_images * workload.captions}
    else:
        amounts = {"captions": workload.decode_images}
    return {
        "runs": [asdict(run) for run in runs],
        "cpu_seconds": cpu,
        "wall_seconds": wall,
        "per_cpu_second": {k: v / cpu["median"] for k, v in amounts.items()},
        "per_second": {k: v / wall["median"] for k, v in amounts.items()},
        "weights_mb": system.weights_memory() / MEGABYTE,
        "states_mb": system.states_memory() / MEGABYTE,
        "peak_mb": peak_memory(getattr(system, mode), system.device) / MEGABYTE,
    }


def render(result: dict[str, Any]) -> str:
    """A report of :func:`benchmark` as text."""
    protocol = result["protocol"]
    lines = [
        f"{protocol['device']}, {protocol['threads']} thread(s), {protocol['precision']}, "
        f"torch {protocol['torch']}; one run each in turns, {protocol['repeats']} times"
    ]
    for mode in MODES:
        if mode in result:
            lines += ["", *_render_mode(mode, result[mode], protocol)]
    return "\n".join(lines)


def _render_mode(mode: str, result: dict[str, Any], protocol: dict[str, Any]) -> list[str]:
    from tabulate import tabulate

    if mode == "train":
        title = f"training step, {protocol['train_images']} pictures x {protocol['captions']}"
    else:
        title = (
            f"decoding, {protocol['decode_images']} pictures, beam {protocol['beam_size']}, "
            f"{protocol['steps']} words each (captions cannot end earlier)"
        )
    rows = []
    for name, figures in result["systems"].items():
        cpu = figures["cpu_seconds"]
        row = [name, f"{cpu['median']:.3f} ({cpu['min']:.3f}-{cpu['max']:.3f})"]
        row.append(f"{figures['wall_seconds']['median']:.3f}")
        if mode == "train":
            row.append(f"{figures['per_second']['steps']:.3f}")
        row.append(f"{figures['per_second']['captions']:.1f}")
        row.append(f"{figures['per_cpu_second']['captions']:.1f}")
        memory = [figures[f"{part}_mb"] for part in ("weights", "states", "peak")]
        row.append(" + ".join(f"{part:.0f}" for part in memory))
        rows.append(row)
    headers = ["", "CPU s (min-max)", "wall s", *(["steps/s"] if mode == "train" else [])]
    headers += ["captions/s", "per CPU s", "MB weights + states + peak"]
    lines = [title, *tabulate(rows, headers=headers).splitlines()]
    if result["process_mb"]:
        lines.append(f"greatest resident size of the process: {result['process_mb']:.0f} MB")
    first = next(iter(result["systems"]))
    for name, clocks in result["faster_than"].items():
        for clock, ratio in clocks.items():
            lines.append(f"{first} is {_ratio(ratio)} times as fast as {name} ({clock})")
    if "faster_than_reference" in result:
        ratio = _ratio(result["faster_than_reference"])
        lines.append(f"{first} is {ratio} times as fast as the reference figure (cpu)")
    return lines


def write_json(path: str, result: dict[str, Any]) -> None:
    """Write all figures of a report of :func:`benchmark` to a file."""
    with atomic_write(path, mode="w") as file:
        json.dump(result, file, indent=2)
        file.write("\n")


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f}-{ratio['max']:.2f})"
