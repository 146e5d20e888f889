"""The comparison of a suite as Markdown and as HTML."""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodaler.engine.reproduce.suite import Entry
from xmodaler.evaluation.report import read_curves, write_report
from xmodaler.utils.atomic import atomic_write

__all__ = ["passes", "write_tables"]

Results = Mapping[str, Mapping[str, Any]]
_COLUMNS = (
    "model",
    "CIDEr-D",
    "of the oracle",
    "bar",
    "steps/s",
    "captions/s",
    "parameters",
    "minutes",
    "CPU minutes",
)


def passes(entry: Entry, results: Results) -> bool:
    """Whether a config was trained and reached its bar."""
    return entry.name in results and results[entry.name]["share"] >= entry.bar


def write_tables(
    folder: str | os.PathLike[str], entries: Sequence[Entry], results: Results, title: str
) -> str:
    """Write ``comparison.md`` and ``comparison.html``.

    Args:
        folder: Where to; the outputs of each run lie in its sub-folders.
        entries: The configs, in the order of the rows.
        results: Of :func:`~xmodaler.engine.reproduce.single.train_and_test`, by name; a config
            without one has failed.
        title: Heading.

    Returns:
        The Markdown text.
    """
    from tabulate import tabulate

    rows = [_row(entry, results.get(entry.name)) for entry in entries]
    notes = _notes(entries, results)
    table = tabulate(
        [list(row.values()) for row in rows], _COLUMNS, "github", disable_numparse=True
    )
    text = "\n".join([f"# {title}", "", *(f"{note}\n" for note in notes), table, ""])
    with atomic_write(Path(folder, "comparison.md"), "w") as file:
        file.write(text)
    curves = {}
    for entry in entries:
        found = read_curves(Path(folder, entry.name, "metrics.json"))
        for metric in ("val/CIDEr-D", "total_loss"):
            if metric in found:
                curves[f"{entry.name}: {metric}"] = found[metric]
                break
    write_report(
        Path(folder, "comparison.html"), title=title, scores=rows, curves=curves, notes=notes
    )
    return text


def _row(entry: Entry, result: Mapping[str, Any] | None) -> dict[str, str]:
    if result is None:
        values = [entry.name, "failed", *[""] * (len(_COLUMNS) - 2)]
        return dict(zip(_COLUMNS, values, strict=True))
    steps = result["steps_per_second"]
    values = [
        entry.name,
        f"{result['scores']['CIDEr-D']:.3f}",
        f"{result['share']:.0%}{'' if result['share'] >= entry.bar else ' (too low)'}",
        f"{entry.bar:.0%}",
        "" if steps is None else f"{steps:.1f}",
        f"{result['captions_per_second']:.0f}",
        f"{result['parameters'] / 1e6:.2f} M",
        f"{result['train_seconds'] / 60:.1f}",
        f"{result.get('train_cpu_seconds', math.nan) / 60:.1f}",
    ]
    return dict(zip(_COLUMNS, values, strict=True))


def _notes(entries: Sequence[Entry], results: Results) -> list[str]:
    threads = sorted({result["threads"] for result in results.values()})
    notes = [
        "Scores of the held-out test split, beam search. The oracle writes one sentence of the "
        "data's own grammar from the true scene; a bar is the least share of its CIDEr-D.",
        "Steps of training and captions of beam search per second, "
        f"{' or '.join(map(str, threads)) or 'no'} thread(s).",
    ]
    return [*notes, *(f"{e.name}: bar {e.bar:.0%}. {e.reason}" for e in entries if e.reason)]
