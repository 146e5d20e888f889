"""What ``tools/reproduce.py`` does with its arguments."""

import os
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from xmodaler.engine.reproduce.single import finished_result, forget, read_config
from xmodaler.engine.reproduce.suite import SHARE, SUITES, Entry, read_suite
from xmodaler.engine.reproduce.table import passes, value_of, write_tables
from xmodaler.model_zoo import config_root
from xmodaler.utils.errors import UserError

__all__ = ["DATA", "run"]

DATA = {"size": 5000, "videos": 600, "seed": 0}


def run(args: Namespace) -> int:
    """Train a suite, write its tables and print the one in Markdown.

    A config that an earlier call has finished is not run again, unless it, the data or an
    override changed; one that was interrupted goes on where it stopped.

    Args:
        args: ``data_set`` (a folder of configs), ``names``, ``suite``, ``out``, ``data``, ``jobs``,
            ``threads``, ``fresh``, ``opts``.

    Returns:
        1 if a config failed or is below its bar, else 0.
    """
    if args.jobs < 1 or args.threads < 1:
        raise UserError(f"--jobs is {args.jobs} and --threads {args.threads}; both are at least 1")
    suite = args.suite or ("all" if args.names else SUITES[0])
    entries = read_suite(Path(config_root(), args.data_set), args.names, suite)
    data = args.data or os.path.join("data", args.data_set)
    _make_data(data, x2vlm=any(Path(entry.config).stem.startswith("x2vlm") for entry in entries))
    folder = Path(args.out or os.path.join("output", "reproduce", args.data_set))
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    jobs: dict[str, Future] = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        for entry in entries:
            # Runs come after those whose weights they start from, so that waiting for these in a
            # thread of the pool cannot keep them from running.
            first = jobs.get(entry.start)
            jobs[entry.name] = pool.submit(_finish, entry, folder, data, args, first)
        names = {job: name for name, job in jobs.items()}
        for job in as_completed(names):
            result, message = job.result()
            print(f"{names[job]}: {message}", flush=True)
            if result is not None:
                results[names[job]] = result
    print(f"\n{write_tables(folder, entries, results, f'Models on {args.data_set}')}")
    print(f"{folder / 'comparison.md'}, {folder / 'comparison.html'}")
    failed = [entry.name for entry in entries if not passes(entry, results)]
    if failed:
        print(f"below the bar or failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _make_data(folder: str, x2vlm: bool) -> None:
    """Generate what is missing; what X²-VLM alone reads, for its runs alone."""
    from xmodaler.datasets.synthetic import add_understanding, add_x2vlm, make_shapes

    if not Path(folder, "shapes.json").is_file():
        print(f"generating {DATA['size']} pictures and {DATA['videos']} videos in {folder}")
        make_shapes(folder, **DATA, progress=sys.stderr.isatty())
    (add_x2vlm if x2vlm else add_understanding)(folder)


def _finish(
    entry: Entry, folder: Path, data: str, args: Namespace, first: Future | None
) -> tuple[dict[str, Any] | None, str]:
    """The result of one config, from an earlier call or a process of its own."""
    output, opts = folder / entry.name, [*map(str, entry.overrides), *args.opts]
    if first is not None:
        if first.result()[0] is None:
            return None, f"failed: it starts from '{entry.start}', which failed"
        opts += ["MODEL.WEIGHTS", str(folder / entry.start / "model_final.pth")]
    try:
        cfg = read_config(entry.config, str(output), data, opts)
    except UserError as error:
        return None, f"failed: {error}"
    result = None if args.fresh else finished_result(cfg)
    if result is None:
        if args.fresh:
            forget(output)
        error = _run_alone(entry, output, data, args.threads, opts)
        if error:
            return None, f"failed: {error} (see {output / 'output.txt'})"
        result = finished_result(cfg)
        if result is None:
            return None, "failed: its config or data changed while it ran"
    of = "of the oracle's CIDEr-D" if entry.metric == SHARE else entry.metric
    verdict = "reached" if passes(entry, {entry.name: result}) else "NOT reached"
    return result, f"{value_of(entry, result):.1%} {of}, bar of {entry.bar:.0%} {verdict}"


def _run_alone(entry: Entry, output: Path, data: str, threads: int, opts: Sequence[str]) -> str:
    """Run one config in a process; returns the last line of what went wrong, or ''."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "xmodaler.engine.reproduce", "--threads", str(threads)]
    command += [entry.config, str(output), data, *opts]
    variables = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    with open(output / "output.txt", "w", encoding="utf-8") as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **variables}
        )
    if done.returncode == 0:
        return ""
    lines = (output / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), f"exit {done.returncode}")
