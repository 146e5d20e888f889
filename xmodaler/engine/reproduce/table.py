"""The comparison of a suite as Markdown and as HTML."""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from xmodaler.engine.reproduce.suite import SHARE, Entry
from xmodaler.evaluation.report import read_curves, write_report
from xmodaler.utils.atomic import atomic_write

__all__ = ["passes", "value_of", "write_tables"]

Results = Mapping[str, Mapping[str, Any]]
_COST = ("steps/s", "parameters", "minutes", "CPU minutes")
_CAPTIONS = ("model", "CIDEr-D", "of the oracle", "bar", "captions/s", *_COST)
_UNDERSTANDING = ("model", "metric", "score", "chance", "oracle", "bar", *_COST)


def value_of(entry: Entry, result: Mapping[str, Any]) -> float:
    """What is held against the bar."""
    return result["share"] if entry.metric == SHARE else result["scores"][entry.metric]


def passes(entry: Entry, results: Results) -> bool:
    """Whether a config was trained and reached its bar."""
    return entry.name in results and value_of(entry, results[entry.name]) >= entry.bar


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
    parts = [f"# {title}\n"]
    notes = [_threads_note(results)]
    rows: list[dict[str, str]] = []
    captioners = [entry for entry in entries if entry.metric == SHARE]
    others = [entry for entry in entries if entry.metric != SHARE]
    for part, columns, row, note in (
        (captioners, _CAPTIONS, _caption_row, _CAPTION_NOTE),
        (others, _UNDERSTANDING, _understanding_row, _UNDERSTANDING_NOTE),
    ):
        if not part:
            continue
        table = [_row(entry, results.get(entry.name), columns, row) for entry in part]
        parts += [f"{note}\n", f"{_markdown(table)}\n"]
        notes.append(note)
        rows += table
    notes += [f"{e.name}: bar {_bar(e)}. {e.reason}" for e in entries if e.reason]
    text = "\n".join([*parts, *(f"{note}\n" for note in notes if note not in _FIXED_NOTES)])
    with atomic_write(Path(folder, "comparison.md"), "w") as file:
        file.write(text)
    write_report(
        Path(folder, "comparison.html"),
        title=title,
        scores=rows,
        curves=_curves(folder, entries),
        notes=notes,
    )
    return text


_CAPTION_NOTE = (
    "Captions of the held-out test split, beam search. The oracle writes one sentence of the "
    "data's own grammar from the true scene; a bar is the least share of its CIDEr-D."
)
_UNDERSTANDING_NOTE = (
    "Percent on the held-out test split. Chance is what is reached without the pictures, the "
    "oracle's score what the truth reaches; a bar is the least score."
)
_FIXED_NOTES = (_CAPTION_NOTE, _UNDERSTANDING_NOTE)


def _markdown(rows: Sequence[Mapping[str, str]]) -> str:
    from tabulate import tabulate

    values = [list(row.values()) for row in rows]
    return tabulate(values, list(rows[0]), "github", disable_numparse=True)


def _curves(folder: str | os.PathLike[str], entries: Sequence[Entry]) -> dict[str, Any]:
    curves = {}
    for entry in entries:
        found = read_curves(Path(folder, entry.name, "metrics.json"))
        for metric in ("val/CIDEr-D", "total_loss"):
            if metric in found:
                curves[f"{entry.name}: {metric}"] = found[metric]
                break
    return curves


def _row(
    entry: Entry,
    result: Mapping[str, Any] | None,
    columns: Sequence[str],
    first: Callable[[Entry, Mapping[str, Any]], list[str]],
) -> dict[str, str]:
    if result is None:
        values = [entry.name, "failed", *[""] * (len(columns) - 2)]
        return dict(zip(columns, values, strict=True))
    steps = result["steps_per_second"]
    values = [
        *first(entry, result),
        "" if steps is None else f"{steps:.1f}",
        f"{result['parameters'] / 1e6:.2f} M",
        f"{result['train_seconds'] / 60:.1f}",
        f"{result.get('train_cpu_seconds', math.nan) / 60:.1f}",
    ]
    return dict(zip(columns, values, strict=True))


def _caption_row(entry: Entry, result: Mapping[str, Any]) -> list[str]:
    return [
        entry.name,
        f"{result['scores']['CIDEr-D']:.3f}",
        f"{result['share']:.0%}{_verdict(entry, result)}",
        _bar(entry),
        f"{result['captions_per_second']:.0f}",
    ]


def _understanding_row(entry: Entry, result: Mapping[str, Any]) -> list[str]:
    known = (result.get(kind, {}).get(entry.metric) for kind in ("chance", "oracle"))
    return [
        entry.name,
        entry.metric,
        f"{value_of(entry, result):.1%}{_verdict(entry, result)}",
        *("" if value is None else f"{value:.1%}" for value in known),
        _bar(entry),
    ]


def _verdict(entry: Entry, result: Mapping[str, Any]) -> str:
    return "" if value_of(entry, result) >= entry.bar else " (too low)"


def _bar(entry: Entry) -> str:
    return f"{entry.bar:.0%}"


def _threads_note(results: Results) -> str:
    threads = sorted({result["threads"] for result in results.values()})
    return (
        "Steps of training and captions of beam search per second, "
        f"{' or '.join(map(str, threads)) or 'no'} thread(s)."
    )
