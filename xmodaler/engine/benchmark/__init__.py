"""How fast a config trains and decodes, measured side by side with something else."""

from .command import run
from .measure import Run, interleave, peak_memory, summarise
from .report import benchmark, render, write_json
from .systems import System, XmodalerSystem
from .workload import Workload, random_batch

__all__ = [
    "Run",
    "System",
    "Workload",
    "XmodalerSystem",
    "benchmark",
    "interleave",
    "peak_memory",
    "random_batch",
    "render",
    "run",
    "summarise",
    "write_json",
]
