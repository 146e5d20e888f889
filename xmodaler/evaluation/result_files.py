"""What evaluators share: results by id, and the files that evaluation servers take."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xmodaler.utils.errors import UserError

__all__ = ["canonical_id", "results_by_id", "unknown_ids", "write_results"]

logger = logging.getLogger(__name__)


def canonical_id(key: Any) -> str:
    """The id under which results and references meet: 7, "7" and "007" are the same record."""
    text = str(key)
    return str(int(text)) if text.isdecimal() else text


def results_by_id(
    results: Sequence[Mapping[str, Any]], id_key: str, value_key: str, noun: str
) -> dict[str, Any]:
    """The values of a list of results.

    Args:
        results: One mapping per record.
        id_key: Under which a result has its id, an integer or a string.
        value_key: Under which it has its value.
        noun: What an id names: image, question.

    Returns:
        The values by canonical id, in the order of the results.

    Raises:
        UserError: A key is missing, or an id comes twice.
    """
    values: dict[str, Any] = {}
    for index, result in enumerate(results):
        if id_key not in result or value_key not in result:
            raise UserError(
                f"result {index} has the keys {sorted(result)}, but INFERENCE.ID_KEY '{id_key}' "
                f"and INFERENCE.VALUE '{value_key}' are needed"
            )
        key = canonical_id(result[id_key])
        if key in values:
            raise UserError(f"{noun} {key} has more than one result; each is scored once")
        values[key] = result[value_key]
    return values


def unknown_ids(values: Mapping[str, Any], known: Mapping[str, Any], noun: str, file: str) -> str:
    """One sentence about the results whose ids a file does not know; '' where it knows all."""
    unknown = [key for key in values if key not in known]
    if not unknown:
        return ""
    return (
        f"{len(unknown)} of {len(values)} results belong to {noun}s that are not in '{file}', the "
        f"first of them {unknown[0]}"
    )


def write_results(
    output_dir: str, name: str, content: Any, dump: Callable[[Any, Any], None] | None = None
) -> str:
    """Writes ``<output_dir>/results/<name>``, whole or not at all.

    Args:
        output_dir: Of the run; '' writes nothing.
        name: Of the file, with its suffix.
        content: What goes into it.
        dump: Writes content into an open file; by default as JSON.

    Returns:
        The path, or ''.
    """
    from xmodaler.utils.atomic import atomic_write

    if not output_dir:
        return ""
    path = os.path.join(output_dir, "results", name)
    with atomic_write(path, "w") as file:
        if dump is None:
            json.dump(content, file, ensure_ascii=False)
        else:
            dump(content, file)
    return path
