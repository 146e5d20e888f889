"""Where the scalars of a run go, and the repair of its metrics file on resume."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from xmodaler.utils.events import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Writers to the log, to ``output_dir/metrics.json``, and to TensorBoard, in this order.

    Args:
        output_dir: Folder of the run; created if absent.
        max_iter: Length of the training, for the estimate of the remaining time.
    """
    os.makedirs(output_dir, exist_ok=True)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]


def truncate_metrics(path: str | os.PathLike, iteration: int) -> None:
    """Drop the lines of a metrics file that a resumed run is going to write again.

    Keeps lines whose ``iteration`` is at most ``iteration``; a line cut off by a kill goes too.
    The file is edited in place because a writer may already hold it open for appending.
    """
    path = Path(path)
    if not path.is_file():
        return
    before = path.read_bytes()
    kept = b"".join(_lines_up_to(before, iteration))
    if kept == before:
        return
    with open(path, "r+b") as file:
        # Usually the kept lines are a prefix and nothing has to be written at all.
        if not before.startswith(kept):
            file.write(kept)
        file.truncate(len(kept))


def _lines_up_to(content: bytes, iteration: int) -> Iterator[bytes]:
    for line in content.splitlines(keepends=True):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("iteration", 0) <= iteration:
            yield line if line.endswith(b"\n") else line + b"\n"
