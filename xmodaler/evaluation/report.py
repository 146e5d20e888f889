"""A report of a training run as one HTML file that needs nothing else."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xmodaler.evaluation.report_samples import cell_text, draw_sample
from xmodaler.utils.atomic import atomic_write

__all__ = ["Curve", "read_curves", "write_report"]

Curve = Sequence[tuple[float, float]]  # (iteration, value) pairs

_MAX_POINTS = 240  # of a curve
_MAX_PROBES = 60  # of them with a title under the pointer


def write_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    scores: Sequence[Mapping[str, Any]] = (),
    curves: Mapping[str, Curve] | None = None,
    samples: Sequence[Mapping[str, Any]] = (),
    notes: str | Sequence[str] = (),
    tables: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    samples_title: str = "",
) -> None:
    """Writes score table, training curves and captioned pictures to an HTML file.

    Pictures are embedded, curves are inline SVG, there is no script and no reference to the
    outside. Text is escaped. The file appears whole or not at all.

    Args:
        path: The file to write.
        title: Heading.
        scores: Rows of the table; a row maps column to text or number, columns are in the order of
            their first appearance, the first is the label.
        curves: Name to (iteration, value) pairs; non-finite values are left out.
        samples: Mappings; see :func:`xmodaler.evaluation.report_samples.draw_sample`.
        notes: Sentences under the heading.
        tables: Further tables like ``scores`` by their headings.
        samples_title: Heading of the samples; by default their number.

    Raises:
        UserError: If the file cannot be written or a picture cannot be read.
    """
    import jinja2

    from xmodaler import __version__

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("xmodaler.evaluation"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=False,
    )
    drawn = [_draw_curve(name, points) for name, points in (curves or {}).items()]
    html = environment.get_template("report.html").render(
        title=title,
        notes=[notes] if isinstance(notes, str) else list(notes),
        tables=[
            {"title": heading, **_table(rows)}
            for heading, rows in {"Scores": scores, **(tables or {})}.items()
            if rows
        ],
        curves=[curve for curve in drawn if curve is not None],
        samples=[draw_sample(sample) for sample in samples],
        samples_title=samples_title or f"{len(samples)} test pictures",
        version=__version__,
    )
    with atomic_write(path, "w") as file:
        file.write(html)


def read_curves(path: str | os.PathLike[str]) -> dict[str, list[tuple[int, float]]]:
    """Reads the scalars of a ``metrics.json``: one JSON object with ``iteration`` per line.

    Lines that were cut off by a kill are skipped; where an iteration appears twice because a run
    was resumed, the later line counts.

    Args:
        path: The file; a missing one gives no curves.

    Returns:
        Name to (iteration, value) pairs in order of iteration; names sorted.
    """
    found: dict[str, dict[int, float]] = {}
    if not os.path.isfile(path):
        return {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
                iteration = int(record.pop("iteration"))
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
            for name, value in record.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    found.setdefault(name, {})[iteration] = float(value)
    return {name: sorted(points.items()) for name, points in sorted(found.items())}


def _table(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    return {
        "columns": columns,
        "rows": [[cell_text(row.get(column, "")) for column in columns] for row in rows],
    }


def _number(value: float) -> str:
    """A number in few characters, for axes."""
    if value == 0:
        return "0"
    if abs(value) < 1e-3 or abs(value) >= 1e5:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"


def _draw_curve(name: str, points: Curve) -> dict[str, Any] | None:
    """Coordinates of a curve in a drawing of 320 x 150 units; None without a finite point."""
    points = [(float(x), float(y)) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not points:
        return None
    last = points[-1]
    points = _thin(points, _MAX_POINTS)
    # Values beyond any sense would overflow when their range is taken.
    xs, ys = np.clip(np.array(points).T, -1e150, 1e150)
    low, high = float(ys.min()), float(ys.max())
    if low == high:
        margin = max(abs(low or 1) / 2, 1e-300)  # half of the least number is nothing
        low, high = low - margin, high + margin
    left, right, top, bottom = 40.0, 314.0, 10.0, 126.0
    span = float(xs[-1] - xs[0]) or 1.0
    px = (left + (xs - xs[0]) / span * (right - left)) if len(xs) > 1 else np.array([right])
    py = bottom - (ys - low) / (high - low) * (bottom - top)
    step = max(1, len(points) // _MAX_PROBES)
    chosen = sorted({*range(0, len(points), step), len(points) - 1})
    edges = [left, *((px[a] + px[b]) / 2 for a, b in itertools.pairwise(chosen)), right]
    return {
        "name": name,
        "last": _number(last[1]),
        "label": f"{name}: {_number(ys[0])} at {_number(xs[0])}, {_number(last[1])} at the end",
        "top": _number(high),
        "bottom": _number(low),
        "first_x": _whole(xs[0]) if len(xs) > 1 else "",
        "last_x": _whole(xs[-1]),
        "path": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(px, py, strict=True)),
        "end": (f"{px[-1]:.1f}", f"{py[-1]:.1f}"),
        "probes": [
            {
                "left": f"{edges[k]:.1f}",
                "width": f"{max(0.0, edges[k + 1] - edges[k]):.1f}",
                "x": f"{px[i]:.1f}",
                "y": f"{py[i]:.1f}",
                "title": f"{_whole(xs[i])}: {_number(ys[i])}",
            }
            for k, i in enumerate(chosen)
        ],
    }


def _whole(value: float) -> str:
    return f"{value:.0f}" if float(value).is_integer() else _number(value)


def _thin(points: list[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """At most ``most`` points: neighbours are averaged, so that a noisy curve stays honest."""
    if len(points) <= most:
        return points
    # Groups of one size, or the curve would look noisier where they are smaller.
    size = math.ceil(len(points) / (most - 2))
    inner = np.clip(np.array(points[1:-1]), -1e150, 1e150)
    groups = (inner[start : start + size] for start in range(0, len(inner), size))
    return [points[0], *(tuple(group.mean(axis=0).tolist()) for group in groups), points[-1]]
