"""Tokenised annotations kept between runs, and never after what they were made of changed."""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from typing import Any

from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError

_logger = logging.getLogger(__name__)

SMALLEST = 20_000
"""Fewer records than this are tokenised faster than a file is worth."""

_VERSION = "1"


def cached_records(
    folder: str,
    name: str,
    raw: list[dict[str, Any]],
    parts: list[str],
    make: Callable[[list[dict[str, Any]]], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Records made of others, read from ``<folder>/<name>_<key>.json`` if they were made before.

    The key is a digest of the raw records and of all else that decides the result, so a change of
    the annotations, of the tokenizer or of the greatest length makes a file of its own.

    Args:
        folder: Where the files lie; made if need be. Where it cannot be written, nothing is kept.
        name: What the file's name begins with.
        raw: Records of plain JSON values.
        parts: What else decides the result, the tokenizer's fingerprint for one.
        make: ``raw records -> records`` of plain JSON values.
    """
    if len(raw) < SMALLEST:
        return make(raw)
    digest = hashlib.sha256(json.dumps([_VERSION, parts, raw], sort_keys=True).encode())
    path = os.path.join(folder, f"{name}_{digest.hexdigest()[:20]}.json")
    if os.path.isfile(path):
        try:
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError) as error:
            _logger.warning("Making '%s' anew, it cannot be read: %s", path, error)
    records = make(raw)
    try:
        with atomic_write(path, "w") as file:
            json.dump(records, file, separators=(",", ":"))
    except UserError as error:
        _logger.warning("Tokenised annotations are not kept: %s", error)
    return records
