"""Tokenised annotations kept between runs, and never after what they were made of changed."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

_logger = logging.getLogger(__name__)

SMALLEST = 20_000
"""Fewer records than this are read and tokenised faster than a file is worth."""

_VERSION = "1"
_BLOCK = 1 << 20


def cached_records(
    folder: str,
    name: str,
    files: Sequence[str],
    parts: Sequence[str],
    make: Callable[[], list[dict[str, Any]]],
) -> list[dict[str, Any]]:
    """Records made of files, read from ``<folder>/<name>_<key>.json`` if they were made before.

    The key is a digest of the contents of the files and of all else that decides the result, so a
    change of the annotations, of the tokenizer or of the greatest length makes a file of its own.

    Args:
        folder: Where the files lie; made if need be. Where it cannot be written, nothing is kept.
        name: What the file's name begins with.
        files: What the records are made of; with one that is no file nothing is kept.
        parts: What else decides the result, the tokenizer's fingerprint for one.
        make: Gives the records, of plain JSON values.
    """
    key = _key(files, parts)
    if key is None:
        return make()
    path = os.path.join(expand_path(folder), f"{name}_{key}.json")
    if os.path.isfile(path):
        try:
            with open(path, encoding="utf-8") as file:
                return json.load(file)
        except (OSError, ValueError) as error:
            _logger.warning("Making '%s' anew, it cannot be read: %s", path, error)
    records = make()
    if len(records) >= SMALLEST:
        try:
            with atomic_write(path, "w") as file:
                json.dump(records, file, separators=(",", ":"))
        except UserError as error:
            _logger.warning("Tokenised annotations are not kept: %s", error)
    return records


def _key(files: Sequence[str], parts: Sequence[str]) -> str | None:
    digest = hashlib.sha256(json.dumps([_VERSION, *parts]).encode())
    for path in files:
        path = expand_path(path)
        if not os.path.isfile(path):
            return None
        digest.update(f"{os.path.basename(path)} {os.path.getsize(path)} ".encode())
        try:
            with open(path, "rb") as file:
                while block := file.read(_BLOCK):
                    digest.update(block)
        except OSError:  # whoever reads the records says what is wrong
            return None
    return digest.hexdigest()[:20]
