"""Scores of captions as JSON, Markdown and HTML."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from xmodaler.evaluation.report import write_report
from xmodaler.evaluation.scoring import CaptionReport, SystemScores
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError

__all__ = ["caption_tables", "check_ending", "markdown_report", "write_caption_report"]

Rows = list[dict[str, Any]]

_ENDINGS = (".json", ".md", ".html")
_SHARES = ("distinct_1", "distinct_2", "unique", "novel", "div_1", "div_2", "self_cider")
_SHOWN = 12  # captions at either end of the scale in an HTML report


def write_caption_report(
    path: str | os.PathLike[str], report: CaptionReport, title: str = "Caption scores"
) -> None:
    """Writes a report in the format that the ending of the file names.

    Args:
        path: ``.json`` holds everything as plain numbers, also the scores of every image;
            ``.md`` has the tables; ``.html`` has them and the best and the worst captions, with
            pictures where the report knows them.
        report: From :func:`xmodaler.evaluation.scoring.compare_captions`.
        title: Heading.

    Raises:
        UserError: The ending is another one, or the file cannot be written.
    """
    ending = check_ending(path)
    if ending == ".json":
        text = json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n"
    elif ending == ".md":
        text = markdown_report(report, title)
    else:
        _write_html(path, report, title)
        return
    with atomic_write(path, "w") as file:
        file.write(text)


def check_ending(path: str | os.PathLike[str]) -> str:
    """The ending of the file of a report.

    Raises:
        UserError: It stands for no format of reports.
    """
    ending = os.path.splitext(os.fspath(path))[1].lower()
    if ending not in _ENDINGS:
        raise UserError(f"'{path}' does not end in {', '.join(_ENDINGS)}, the formats of reports")
    return ending


def caption_tables(report: CaptionReport) -> dict[str, Rows]:
    """The tables of a report by their headings; cells are text."""
    percent = f"{100 * report.settings['confidence']:g} %"
    tables = {"Scores": [_score_row(system) for system in report.systems.values()]}
    if report.comparisons:
        tables["Comparison"] = [
            {
                "systems": f"{first} − {second}",
                "score": name,
                "difference": f"{100 * result.difference:+.1f}",
                f"{percent} interval": f"[{100 * result.low:+.1f}, {100 * result.high:+.1f}]",
                "p (bootstrap)": _probability(result.p_bootstrap),
                "p (randomisation)": _probability(result.p_randomization),
            }
            for (first, second), results in report.comparisons.items()
            for name, result in results.items()
        ]
    tables["Diversity"] = [
        {"system": system.name}
        | {
            name: f"{value:.3f}" if name in _SHARES else f"{value:.0f}"
            for name, value in system.diversity.items()
        }
        for system in report.systems.values()
    ]
    tables["Words per caption"] = [
        {"system": system.name}
        | {
            name: f"{value:.2f}" if isinstance(value, float) else str(value)
            for name, value in system.lengths.items()
            if name != "histogram"
        }
        for system in report.systems.values()
    ]
    return tables


def markdown_report(report: CaptionReport, title: str = "Caption scores") -> str:
    """The tables of a report as Markdown."""
    parts = [f"# {title}", *_remarks(report)]
    for heading, rows in caption_tables(report).items():
        parts += [f"## {heading}", _markdown_table(rows)]
    return "\n\n".join(parts) + "\n"


def _remarks(report: CaptionReport) -> list[str]:
    settings = report.settings
    images, references = settings["images"], settings["references"]
    remarks = [f"{images} images with {references} references; scores times 100."]
    if settings["samples"] and images:
        remarks.append(
            f"In brackets: {100 * settings['confidence']:g} % bootstrap intervals from "
            f"{settings['samples']} sets of images (seed {settings['seed']})."
        )
    missing = {
        f"{name}: not computed, {reason}."
        for system in report.systems.values()
        for name, reason in system.unavailable.items()
    }
    return [*remarks, *report.notes, *sorted(missing)]


def _score_row(system: SystemScores) -> dict[str, str]:
    row = {"system": system.name}
    for name, value in system.corpus.items():
        row[name] = f"{100 * value:.1f}"
        if name in system.intervals:
            low, high = system.intervals[name]
            row[name] += f" [{100 * low:.1f}, {100 * high:.1f}]"
    return row


def _probability(value: float) -> str:
    return f"{value:.4f}" if value < 0.01 else f"{value:.3f}"


def _markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)]]
    lines += [[row.get(column, "–").replace("|", "\\|") for column in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _write_html(path: str | os.PathLike[str], report: CaptionReport, title: str) -> None:
    tables = caption_tables(report)
    first = next(iter(report.systems.values()))
    ranked, score = _ranked(first)
    shown = ranked if len(ranked) <= 2 * _SHOWN else [*ranked[:_SHOWN], *ranked[-_SHOWN:]]
    others = [system for system in report.systems.values() if system is not first]
    write_report(
        path,
        title=title,
        notes=_remarks(report),
        scores=tables.pop("Scores"),
        tables=tables,
        samples=[
            {
                "caption": first.captions[key][0],
                "image": report.pictures.get(key),
                "references": [
                    *(f"{other.name}: {other.captions[key][0]}" for other in others),
                    *report.references[key],
                ],
                "scores": {"image": key}
                | {name: f"{100 * value:.1f}" for name, value in first.per_image[key].items()},
            }
            for key in shown
        ],
        samples_title=f"Captions of {first.name}, the best and the worst by {score}",
    )


def _ranked(system: SystemScores) -> tuple[list[str], str]:
    """Images from the best to the worst caption, and the score that says so."""
    known = set(chain.from_iterable(system.per_image.values()))
    score = next((name for name in ("CIDEr", "CIDEr-D", "ROUGE_L", "Bleu_4") if name in known), "")
    keys = list(system.per_image)
    if score:
        keys.sort(key=lambda key: -system.per_image[key][score])
    return keys, score or "no score"
