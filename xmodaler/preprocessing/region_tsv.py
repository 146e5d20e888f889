"""Bottom-up-attention features from the TSV files that they are published in."""

import base64
import binascii
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from xmodaler.datasets.annotations import Problem
from xmodaler.datasets.bad_samples import SampleError
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .feature_sink import FeatureSink

FIELDS = ("image_id", "image_w", "image_h", "num_boxes", "boxes", "features")


def read_region_tsv(
    path: str | os.PathLike,
) -> Iterator[tuple[str, dict[str, np.ndarray]] | SampleError]:
    """The pictures of a TSV file (Anderson et al., CVPR 2018).

    A line has :data:`FIELDS`; ``boxes`` and ``features`` are base64 of float32, (n, 4) and (n, D).

    Yields:
        An id (the number without leading zeros) and ``features``, ``boxes``, ``image_w``,
        ``image_h``, ``num_boxes``; or what is wrong with a line.

    Raises:
        UserError: The file does not exist or cannot be read.
    """
    path = expand_path(path)
    name = os.path.basename(path)
    try:
        with open(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        yield _picture(line.rstrip(b"\r\n").split(b"\t"))
                    except (ValueError, binascii.Error) as error:
                        yield SampleError(f"{name} line {number}", str(error))
    except OSError as error:
        raise UserError(f"TSV file '{path}' cannot be read: {error.strerror}") from None


def _picture(cells: list[bytes]) -> tuple[str, dict[str, np.ndarray]]:
    if len(cells) != len(FIELDS):
        raise ValueError(f"{len(cells)} fields where {len(FIELDS)} are due: {', '.join(FIELDS)}")
    text = [cell.decode("ascii", errors="replace").strip() for cell in cells[:4]]
    try:
        width, height, count = (int(float(cell)) for cell in text[1:])
    except (ValueError, OverflowError):
        raise ValueError(f"the sizes {', '.join(text[1:])} are not numbers") from None
    boxes, features = (np.frombuffer(base64.b64decode(c), dtype="<f4") for c in cells[4:])
    if count < 1 or boxes.size != 4 * count or not features.size or features.size % count:
        raise ValueError(
            f"{boxes.size} numbers of boxes and {features.size} of features do not make "
            f"{count} regions"
        )
    item_id = str(int(text[0])) if text[0].isdecimal() else text[0]
    return item_id, {
        "features": features.reshape(count, -1),
        "boxes": boxes.reshape(count, 4),
        "image_w": np.array([width]),
        "image_h": np.array([height]),
        "num_boxes": np.array([count]),
    }


@dataclass
class ConversionSummary:
    """What a conversion did.

    Attributes:
        written: Pictures that were written.
        kept: Pictures that were there already.
        problems: What was left out.
        total: Pictures that the folder or file now holds.
    """

    written: int = 0
    kept: int = 0
    problems: list[Problem] = field(default_factory=list)
    total: int = 0

    def __str__(self) -> str:
        lines = [f"left out {problem}" for problem in self.problems[:20]]
        if len(self.problems) > 20:
            lines.append(f"left out {len(self.problems) - 20} more")
        lines.append(
            f"wrote {self.written}, had {self.kept} already, left out {len(self.problems)}; "
            f"{self.total} records in all"
        )
        return "\n".join(lines)


def convert_region_tsv(
    paths: Sequence[str | os.PathLike], sink: FeatureSink, keep_boxes: bool = False
) -> ConversionSummary:
    """Write the pictures of TSV files to a folder or packed file.

    Args:
        paths: The files.
        sink: Where to.
        keep_boxes: Keep boxes and picture sizes. The captioners' recipes are without: with boxes
            the data sets put the mean region in front.

    Raises:
        UserError: A file cannot be read, or no picture is usable.
    """
    summary = ConversionSummary()
    seen: set[str] = set()
    for path in paths:
        for record in read_region_tsv(path):
            try:
                if isinstance(record, SampleError):
                    raise record
                item_id, arrays = record
                if item_id in seen:
                    raise SampleError(f"picture {item_id}", "occurs twice; the first is kept")
                seen.add(item_id)
                if item_id in sink:
                    summary.kept += 1
                    continue
                sink.write(item_id, arrays if keep_boxes else {"features": arrays["features"]})
                summary.written += 1
            except SampleError as error:
                summary.problems.append(Problem(error.record, error.reason, error.record))
    if not (summary.written or summary.kept):
        reason = f"; the first problem: {summary.problems[0]}" if summary.problems else ""
        raise UserError(f"there is no usable picture in {', '.join(map(str, paths))}{reason}")
    summary.total = sink.finish()
    return summary
