"""What ``tools/reproduce.py`` does with its arguments."""

import os
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from xmodaler.engine.reproduce.single import finished_result, forget, read_config
from xmodaler.engine.reproduce.suite import Entry, read_suite
from xmodaler.engine.reproduce.table import passes, write_tables
from xmodaler.model_zoo import config_root
from xmodaler.utils.errors import UserError

__all__ = ["DATA", "run"]

DATA = {"size": 5000, "videos": 600, "seed": 0}


def run(args: Namespace) -> int:
    """Train a suite, write its tables and print the one in Markdown.

    A config that an earlier call has finished is not run again, unless it, the data or an
    override changed; one that was interrupted goes on where it stopped.

    Args:
        args: ``suite``, ``names``, ``out``, ``data``, ``jobs``, ``threads``, ``fresh``, ``opts``.

    Returns:
        1 if a config failed or is below its bar, else 0.
    """
    if args.jobs < 1 or args.threads < 1:
        raise UserError(f"--jobs is {args.jobs} and --threads {args.threads}; both are at least 1")
    entries = read_suite(Path(config_root(), args.suite), args.names)
    data = args.data or os.path.join("data", args.suite)
    _make_data(data)
    folder = Path(args.out or os.path.join("output", "reproduce", args.suite))
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(args.jobs) as pool:
        jobs = {pool.submit(_finish, entry, folder, data, args): entry for entry in entries}
        for job in as_completed(jobs):
            result, message = job.result()
            print(f"{jobs[job].name}: {message}", flush=True)
            if result is not None:
                results[jobs[job].name] = result
    print(f"\n{write_tables(folder, entries, results, f'Captioners on {args.suite}')}")
    print(f"{folder / 'comparison.md'}, {folder / 'comparison.html'}")
    failed = [entry.name for entry in entries if not passes(entry, results)]
    if failed:
        print(f"below the bar or failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _make_data(folder: str) -> None:
    from xmodaler.datasets.synthetic import make_shapes

    if not Path(folder, "shapes.json").is_file():
        print(f"generating {DATA['size']} pictures and {DATA['videos']} videos in {folder}")
        make_shapes(folder, **DATA, progress=sys.stderr.isatty())


def _finish(
    entry: Entry, folder: Path, data: str, args: Namespace
) -> tuple[dict[str, Any] | None, str]:
    """The result of one config, from an earlier call or a process of its own."""
    output = folder / entry.name
    try:
        cfg = read_config(entry.config, str(output), data, args.opts)
    except UserError as error:
        return None, f"failed: {error}"
    result = None if args.fresh else finished_result(cfg)
    if result is None:
        if args.fresh:
            forget(output)
        error = _run_alone(entry, output, data, args)
        if error:
            return None, f"failed: {error} (see {output / 'output.txt'})"
        result = finished_result(cfg)
        if result is None:
            return None, "failed: its config or data changed while it ran"
    share = f"{result['share']:.1%} of the oracle's CIDEr-D"
    verdict = "reached" if result["share"] >= entry.bar else "NOT reached"
    return result, f"{share}, bar of {entry.bar:.0%} {verdict}"


def _run_alone(entry: Entry, output: Path, data: str, args: Namespace) -> str:
    """Run one config in a process; returns the last line of what went wrong, or ''."""
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "xmodaler.engine.reproduce", "--threads", str(args.threads)]
    command += [entry.config, str(output), data, *args.opts]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(args.threads))
    with open(output / "output.txt", "w", encoding="utf-8") as log:
        done = subprocess.run(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **threads}
        )
    if done.returncode == 0:
        return ""
    lines = (output / "output.txt").read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), f"exit {done.returncode}")
