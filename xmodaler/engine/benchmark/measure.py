"""Timing several things in turns, so that whatever else the machine does hits all alike."""

import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Run:
    """Seconds of one run: ``cpu`` of all threads of this process, ``wall`` on the clock."""

    cpu: float
    wall: float


def interleave(
    tasks: Mapping[str, Callable[[], Any]], repeats: int, device: torch.device
) -> dict[str, list[Run]]:
    """Run the tasks in turns, A B A B, after one untimed turn.

    Args:
        tasks: What to run, by name.
        repeats: Timed turns.
        device: Waited for before a clock is read.
    """
    runs: dict[str, list[Run]] = {name: [] for name in tasks}
    for turn in range(repeats + 1):
        for name, task in tasks.items():
            _wait(device)
            cpu, wall = time.process_time(), time.perf_counter()
            task()
            _wait(device)
            run = Run(time.process_time() - cpu, time.perf_counter() - wall)
            if turn:
                runs[name].append(run)
    return runs


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def summarise(values: Sequence[float]) -> dict[str, float]:
    """Least, middle and greatest of some values."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def peak_memory(task: Callable[[], Any], device: torch.device) -> int:
    """Greatest number of bytes that a task holds in tensors beyond those that exist before it.

    The allocator is asked on CUDA. On a CPU every allocation of one run is recorded, which does
    not depend on what the process held or freed before, as its resident size would.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        task()
        _wait(device)
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    recorded = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
    with _without_messages():
        recorded.start()
    task()
    with _without_messages():
        recorded.stop()
    events = recorded.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak


def process_memory() -> int:
    """Greatest resident size of this process so far in bytes: also libraries, weights, states.

    0 where the system does not tell.
    """
    try:
        import resource
    except ImportError:
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


@contextlib.contextmanager
def _without_messages() -> Iterator[None]:
    """Silence what the profiler's own log writes to the file of standard error."""
    sys.stderr.flush()
    before, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(nowhere)
