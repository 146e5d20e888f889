"""Which weights of a file fitted the model, and which did not."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import NamedTuple

import torch

Shape = tuple[int, ...]
MAX_ROWS = 20


class IncompatibleKeys(NamedTuple):
    """The differences between a file and a model.

    Attributes:
        missing_keys: Weights of the model that the file lacks.
        unexpected_keys: Weights of the file that the model lacks.
        incorrect_shapes: `(key, shape in the file, shape in the model)` of weights not loaded.
        table: The same as text, one line a key, with the likely partner of each lone key.
    """

    missing_keys: list[str]
    unexpected_keys: list[str]
    incorrect_shapes: list[tuple[str, Shape, Shape]]
    table: str = ""

    def __bool__(self) -> bool:
        return bool(self.missing_keys or self.unexpected_keys or self.incorrect_shapes)


def compare(
    in_model: Mapping[str, torch.Tensor], in_file: Mapping[str, torch.Tensor]
) -> IncompatibleKeys:
    """Compare names and shapes.

    A name that the file lacks is not missing if it is another name of a parameter that the file
    has (shared weights).

    Args:
        in_model: The model's own `state_dict(keep_vars=True)`.
        in_file: The state dict read.
    """
    reshaped = [
        (key, tuple(in_file[key].shape), tuple(tensor.shape))
        for key, tensor in in_model.items()
        if key in in_file and in_file[key].shape != tensor.shape
    ]
    found = {id(tensor) for key, tensor in in_model.items() if key in in_file}
    missing = [k for k, tensor in in_model.items() if k not in in_file and id(tensor) not in found]
    unexpected = [key for key in in_file if key not in in_model]
    return IncompatibleKeys(missing, unexpected, reshaped)


def with_table(
    incompatible: IncompatibleKeys,
    in_model: Mapping[str, torch.Tensor],
    in_file: Mapping[str, torch.Tensor],
) -> IncompatibleKeys:
    """Add the table of the differences, at most `MAX_ROWS` lines of each kind."""
    if not incompatible:
        return incompatible
    rows: list[tuple[str, str, str]] = []
    missing, unexpected, reshaped, _ = incompatible

    def add(kind: str, keys: list[str], own: Mapping, others: list[str], other: Mapping) -> None:
        for key in keys[:MAX_ROWS]:
            partner = _partner(key, own, others, other)
            note = f"nearest in the {'file' if kind == 'missing' else 'model'}: {partner}"
            rows.append((kind, f"{key} {_text(own[key].shape)}", note if partner else ""))
        if len(keys) > MAX_ROWS:
            rows.append((kind, f"... and {len(keys) - MAX_ROWS} more", ""))

    add("missing", missing, in_model, unexpected, in_file)
    add("unexpected", unexpected, in_file, missing, in_model)
    for key, file_shape, model_shape in reshaped[:MAX_ROWS]:
        note = f"{_text(file_shape)} in the file, {_text(model_shape)} in the model"
        rows.append(("reshaped", key, note))
    if len(reshaped) > MAX_ROWS:
        rows.append(("reshaped", f"... and {len(reshaped) - MAX_ROWS} more", ""))
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    lines = (f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {note}".rstrip() for a, b, note in rows)
    return incompatible._replace(table="\n".join(lines))


def summary(incompatible: IncompatibleKeys) -> str:
    """Say the differences in half a sentence, the first key of each kind as an example."""
    missing, unexpected, reshaped, _ = incompatible
    parts = [
        f"{len(keys)} {kind} (such as {keys[0]!r})"
        for kind, keys in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("reshaped", [key for key, _, _ in reshaped]),
        )
        if keys
    ]
    return ", ".join(parts)


def _partner(key: str, own: Mapping, others: list[str], other: Mapping) -> str | None:
    # A renamed weight has kept its shape.
    candidates = [name for name in others if other[name].shape == own[key].shape]
    close = difflib.get_close_matches(key, candidates, n=1, cutoff=0.5)
    return close[0] if close else None


def _text(shape: Shape) -> str:
    return f"({', '.join(map(str, shape))})"
