"""The tables of the documentation and of the README, made from ``configs/zoo.yaml``."""

import re
from collections.abc import Iterable

from xmodaler.utils.errors import UserError

from .entries import ZooEntry, get_entry, names

__all__ = ["model_table", "replace_block", "score_tables"]

_BLOCK = re.compile(r"(<!-- zoo:begin[^>]*-->\n).*?(<!-- zoo:end -->)", re.DOTALL)


def model_table(configs: str) -> str:
    """One row an architecture: paper, data sets, released scores, configs.

    Args:
        configs: Link to the folder ``configs``, seen from the page.
    """
    models: dict[str, list[ZooEntry]] = {}
    for entry in map(get_entry, names()):
        models.setdefault(entry.model, []).append(entry)
    header = ("model", "paper", "data", "released CIDEr-D or other score", "configs")
    return _table(header, (_model_row(entries, configs) for entries in models.values()))


def _model_row(entries: list[ZooEntry], configs: str) -> list[str]:
    first = entries[0]
    datasets = dict.fromkeys(entry.dataset.split(" (")[0] for entry in entries)
    scores = [_score(entry) for entry in entries if entry.task != "pre-training"]
    labels = [_label(entry) for entry in entries]
    if 1 < len(datasets) == len(entries):
        labels = list(datasets)
    links = [
        f"[{label}]({configs}/{entry.config})" for label, entry in zip(labels, entries, strict=True)
    ]
    shapes = dict.fromkeys(entry.shapes for entry in entries if entry.shapes)
    links += [f"[shapes]({configs}/{config})" for config in shapes]
    return [
        first.model,
        str(first.paper),
        ", ".join(datasets),
        ", ".join(scores),
        ", ".join(links),
    ]


def _label(entry: ZooEntry) -> str:
    """The model of a captioner, the task of any other."""
    parts = entry.name.split("/")
    return parts[-1] if entry.task.endswith("captioning") else parts[0]


def _score(entry: ZooEntry) -> str:
    value = entry.scores.get(entry.headline)
    if value is None:
        return "–"
    if not entry.task.endswith("captioning"):
        return f"{value:.1f} ({entry.dataset} {entry.headline})"
    return f"{value:.1f} (RL)" if entry.objective == "CIDEr" else f"{value:.1f}"


def score_tables() -> str:
    """All published scores, one table for each data set and objective, then the papers."""
    parts: list[str] = []
    groups: dict[tuple[str, str], list[ZooEntry]] = {}
    for entry in map(get_entry, names()):
        groups.setdefault((entry.dataset, entry.objective), []).append(entry)
    for (dataset, objective), entries in groups.items():
        goal = "CIDEr optimisation" if objective == "CIDEr" else objective
        metrics = next((list(entry.scores) for entry in entries if entry.scores), [])
        rows = (
            [
                f"`{entry.name}`",
                *(f"{entry.scores[m]:.1f}" if entry.scores else "–" for m in metrics),
            ]
            for entry in entries
        )
        sources = dict.fromkeys(entry.source for entry in entries if entry.source)
        parts.append(f"## {dataset}, {goal}\n\n{_table(('name', *metrics), rows)}")
        if sources:
            parts.append(f"Scores: {'; '.join(sources)}.\n")
    papers = dict.fromkeys((e.model, e.paper) for e in map(get_entry, names()))
    parts.append("## Papers\n")
    parts.append("\n".join(f"* {m}: {p.authors}, {p.title}, {p.venue}." for m, p in papers))
    return "\n".join(parts) + "\n"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *map(list, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def replace_block(text: str, block: str, name: str) -> str:
    """A page with what stands between its ``zoo:begin`` and ``zoo:end`` comments replaced.

    Raises:
        UserError: The page ``name`` has no such comments, or several.
    """
    page, count = _BLOCK.subn(lambda match: f"{match[1]}\n{block}\n{match[2]}", text)
    if count != 1:
        raise UserError(f"'{name}' has {count} blocks from zoo:begin to zoo:end; it needs one")
    return page
