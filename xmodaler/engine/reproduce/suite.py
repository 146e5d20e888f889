"""Which configs are trained, and what each must reach."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError, did_you_mean

__all__ = ["BARS", "SUITES", "Entry", "read_suite"]

BARS = "bars.yaml"
CAPTIONING = "captioning"
# Suites whose runs a file of their own names.
OTHER_BARS = {"understanding": "bars_understanding.yaml", "x2vlm": "bars_x2vlm.yaml"}
SUITES = (CAPTIONING, *OTHER_BARS, "all")
SHARE = "share"
"""Metric of captioners: CIDEr-D as a share of the oracle's."""


@dataclass(frozen=True)
class Entry:
    """One run of a suite.

    Attributes:
        name: Of the run; for captioners the file name of the config without its ending.
        config: Path of the config.
        bar: What it must reach: the least share of the oracle's CIDEr-D, or the least value of
            ``metric``.
        reason: Why the bar is not the usual one; '' where it is.
        metric: Name of the score that counts.
        start: Name of the run whose weights it starts from; '' for none.
        overrides: ``KEY, value, ...`` of the config.
    """

    name: str
    config: str
    bar: float
    reason: str = ""
    metric: str = SHARE
    start: str = ""
    overrides: tuple[Any, ...] = ()


def read_suite(
    folder: str | os.PathLike[str], names: Sequence[str] = (), suite: str = CAPTIONING
) -> list[Entry]:
    """The runs of a folder of configs with their bars.

    ``bars.yaml`` of the folder is about captioners. It holds ``DEFAULT``, the usual bar,
    ``LEAVE_OUT``, the names that are no members of the suite, and ``BARS``, a mapping from name to
    ``{BAR, REASON}``. ``bars_understanding.yaml`` and ``bars_x2vlm.yaml``, where they exist, name
    all other runs: a mapping ``RUNS`` from name to ``{METRIC, BAR, REASON, CONFIG, START, OPTS}``,
    where ``CONFIG`` is the name of the config if it is not that of the run, ``START`` the run whose
    weights it starts from, and ``OPTS`` a list of overrides.

    Args:
        folder: Holds the configs and their bars.
        names: Which to take, in this order; none means all, by name.
        suite: One of ``SUITES``.

    Returns:
        The runs; each comes after the one that it starts from, which is taken too.

    Raises:
        UserError: A name or the folder does not exist, or the bars name no config.
    """
    folder = Path(folder)
    others = {name: _named(folder, bars) for name, bars in OTHER_BARS.items()}
    entries: dict[str, Entry] = {}
    if suite in (CAPTIONING, "all"):
        named = {Path(e.config).stem for runs in others.values() for e in runs.values()}
        entries |= _captioners(folder, named)
    for name, runs in others.items():
        if suite in (name, "all"):
            entries |= runs
    for name in names:
        if name not in entries:
            raise UserError(
                f"there is no config '{name}' in '{folder}'{did_you_mean(name, entries)}; "
                f"known are {', '.join(entries)}"
            )
    chosen: dict[str, Entry] = {}
    for name in names or entries:
        _add_with_start(entries[name], entries, chosen)
    return list(chosen.values())


def _add_with_start(entry: Entry, known: dict[str, Entry], chosen: dict[str, Entry]) -> None:
    if entry.start:
        _add_with_start(known[entry.start], known, chosen)
    chosen.setdefault(entry.name, entry)


def _configs(folder: Path) -> list[str]:
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    return [name for name in names if f"{name}.yaml" not in (BARS, *OTHER_BARS.values())]


def _captioners(folder: Path, others: set[str]) -> dict[str, Entry]:
    bars = CfgNode(CfgNode.load_yaml_with_base(str(folder / BARS)))
    known = _configs(folder)
    for name in (*bars.LEAVE_OUT, *bars.BARS):
        if name not in known:
            raise UserError(
                f"'{folder / BARS}' names '{name}', but there is no '{folder / name}.yaml'"
            )
    names = [name for name in known if name not in bars.LEAVE_OUT and name not in others]
    return {name: _captioner(folder, name, bars) for name in names}


def _captioner(folder: Path, name: str, bars: CfgNode) -> Entry:
    own = bars.BARS.get(name, {})
    bar, reason = float(own.get("BAR", bars.DEFAULT)), str(own.get("REASON", ""))
    if bar < bars.DEFAULT and not reason:
        raise UserError(
            f"'{folder / BARS}' asks less than {bars.DEFAULT:.0%} of '{name}' but gives no REASON"
        )
    return Entry(name, str(folder / f"{name}.yaml"), bar, reason)


def _named(folder: Path, bars: str) -> dict[str, Entry]:
    """The runs that a file of bars names."""
    path = folder / bars
    if not path.is_file():
        return {}
    known, entries = _configs(folder), {}
    runs = CfgNode(CfgNode.load_yaml_with_base(str(path))).RUNS
    for name, own in runs.items():
        config, start = own.get("CONFIG", name), own.get("START", "")
        if config not in known:
            raise UserError(f"'{path}' names '{name}', but there is no '{folder / config}.yaml'")
        if start and start not in entries:
            raise UserError(
                f"'{path}': '{name}' starts from '{start}', which is not named above it"
            )
        entries[name] = Entry(
            name,
            str(folder / f"{config}.yaml"),
            float(own.BAR),
            str(own.get("REASON", "")),
            str(own.METRIC),
            start,
            tuple(own.get("OPTS", ())),
        )
    return entries
