"""Helpers around the results of evaluators."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

__all__ = ["flatten_results_dict", "print_csv_format"]


def flatten_results_dict(results: Mapping[str, Any]) -> dict[str, Any]:
    """Makes a nested dict flat, with ``/`` between the keys of the levels.

    Example:
        >>> flatten_results_dict({"a": {"b": 1, "c": {"d": 2}}, "e": 3})
        {'a/b': 1, 'a/c/d': 2, 'e': 3}
    """
    flat: dict[str, Any] = {}
    for key, value in results.items():
        if isinstance(value, Mapping):
            inner = flatten_results_dict(value)
            flat.update({f"{key}/{name}": number for name, number in inner.items()})
        else:
            flat[str(key)] = value
    return flat


def print_csv_format(results: Mapping[str, Any]) -> None:
    """Logs metrics so that they paste into a spreadsheet: a line of names, a line of values.

    Args:
        results: ``{task: {metric: value}}``; bare numbers are put in a task of no name.
    """
    logger = logging.getLogger(__name__)
    bare = {name: value for name, value in results.items() if not isinstance(value, Mapping)}
    tasks = {name: value for name, value in results.items() if isinstance(value, Mapping)}
    for task, metrics in (({"": bare} if bare else {}) | tasks).items():
        logger.info("copypaste: Task: %s", task)
        logger.info("copypaste: %s", ",".join(metrics))
        logger.info("copypaste: %s", ",".join(f"{value:.4f}" for value in metrics.values()))
