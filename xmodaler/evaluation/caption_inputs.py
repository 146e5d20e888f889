"""Captions of any system and their references, from files or from memory."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xmodaler.evaluation.result_files import canonical_id
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["CaptionSets", "read_caption_sets", "read_sentences"]

_ID_KEYS = ("image_id", "video_id", "id", "image", "video", "file_name", "filename")
_TEXT_KEYS = ("captions", "caption", "references", "sentence", "text")
_LIST_KEYS = ("annotations", "sentences")
_FORMATS = (
    "a list of {'image_id': .., 'caption': ..}, an object {id: caption} or {id: [captions]}, COCO "
    "captions JSON, or JSON lines of {'id': .., 'caption': ..}"
)


@dataclass
class CaptionSets:
    """Captions by image.

    Attributes:
        source: What they are called in messages.
        captions: Image id to its captions, in the order of the source.
        repeated: Ids that came in more than one record.
        names: File name to image id, where the source has both.
    """

    source: str
    captions: dict[str, list[str]] = field(default_factory=dict)
    repeated: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)

    def empty(self) -> list[str]:
        """The id of the image of every caption without a letter."""
        pairs = ((key, caption) for key, own in self.captions.items() for caption in own)
        return [key for key, caption in pairs if not caption.strip()]


def read_caption_sets(source: Any, name: str) -> CaptionSets:
    """Captions by image id.

    Ids are compared as the evaluators compare them: 7, "7" and "007" are one image.

    Args:
        source: A path; or what a file may hold: a mapping ``{id: caption}`` or
            ``{id: [captions]}``, COCO captions (a mapping with ``annotations``), or records with
            an id (``image_id``, ``id``, ``video_id`` or a file name) and ``caption`` or
            ``captions``. A file of one record a line is JSON lines.
        name: What to call it in messages when it is not a path.

    Raises:
        UserError: It cannot be read, is none of these, or a caption is not a string.
    """
    if isinstance(source, str | os.PathLike):
        name, source = os.fspath(source), _read(source)
    sets = CaptionSets(name)
    for where, key, captions in _entries(source, name):
        if isinstance(captions, str):
            captions = [captions]
        if not isinstance(captions, list | tuple):
            raise UserError(
                f"{where}: the caption of image {key!r} is a {type(captions).__name__}, not a "
                "string or a list of them"
            )
        for caption in captions:
            if not isinstance(caption, str):
                raise UserError(
                    f"{where}: a caption of image {key!r} is a {type(caption).__name__}, not a "
                    "string"
                )
        key = canonical_id(key)
        if key in sets.captions:
            sets.repeated.append(key)
        sets.captions.setdefault(key, []).extend(captions)
    if isinstance(source, Mapping):
        sets.names = _file_names(source.get("images"))
    return sets


def read_sentences(source: Any, name: str) -> list[str]:
    """Sentences of no particular image.

    Args:
        source: As for :func:`read_caption_sets`, or a list of strings.
        name: What to call it in messages when it is not a path.
    """
    if isinstance(source, str | os.PathLike):
        name, source = os.fspath(source), _read(source)
    if isinstance(source, Mapping):
        return [text for own in read_caption_sets(source, name).captions.values() for text in own]
    records = list(source)
    if all(isinstance(record, str) for record in records):
        return records
    return [text for own in read_caption_sets(records, name).captions.values() for text in own]


def _read(path: str | os.PathLike[str]) -> Any:
    """The content of a JSON or JSON lines file."""
    from xmodaler.datasets.annotations import read_json

    path = expand_path(os.fspath(path))
    if os.path.splitext(path)[1].lower() not in (".jsonl", ".ndjson", ".jsonlines"):
        try:
            return read_json(path)
        except UserError:
            # Lines of objects are no JSON as a whole; what is neither keeps the first complaint.
            lines = _lines(path) if os.path.isfile(path) else None
            if lines is None or len(lines) < 2 or not isinstance(lines[0], Mapping):
                raise
            return lines
    lines = _lines(path)
    if lines is None:
        raise UserError(f"'{path}' cannot be read as JSON lines: every line must be an object")
    return lines


def _lines(path: str) -> list[Any] | None:
    try:
        with open(path, encoding="utf-8-sig") as file:
            return [json.loads(line) for line in file if line.strip()]
    except FileNotFoundError:
        raise UserError(f"the captions '{path}' do not exist") from None
    except (ValueError, RecursionError, OSError):
        return None


def _entries(content: Any, name: str) -> Iterator[tuple[str, Any, Any]]:
    """(where, image id, caption or captions) of everything in a source."""
    if isinstance(content, Mapping):
        for key in _LIST_KEYS:
            if isinstance(content.get(key), list):
                yield from _records(content[key], f"{name} {key}")
                return
        for key, captions in content.items():
            if isinstance(captions, Mapping):
                raise UserError(f"{name}: the value of {key!r} is an object; right is {_FORMATS}")
            yield name, _checked_id(key, name), captions
        return
    if isinstance(content, str | bytes) or not isinstance(content, Iterable):
        raise UserError(f"{name} is a {type(content).__name__}; right is {_FORMATS}")
    yield from _records(content, name)


def _records(records: Iterable[Any], name: str) -> Iterator[tuple[str, Any, Any]]:
    for index, record in enumerate(records):
        where = f"{name} record {index + 1}"
        if not isinstance(record, Mapping):
            raise UserError(f"{where} is a {type(record).__name__}; right is {_FORMATS}")
        id_key = next((key for key in _ID_KEYS if key in record), None)
        text_key = next((key for key in _TEXT_KEYS if key in record), None)
        if id_key is None or text_key is None:
            missing = "an id ('image_id' or 'id')" if id_key is None else "a 'caption'"
            raise UserError(f"{where} lacks {missing}; it has the keys {sorted(map(str, record))}")
        yield where, _checked_id(record[id_key], where), record[text_key]


def _checked_id(key: Any, where: str) -> Any:
    if isinstance(key, bool) or not isinstance(key, str | int):
        raise UserError(f"{where}: the id {key!r} is neither a string nor an integer")
    return key


def _file_names(images: Any) -> dict[str, str]:
    if not isinstance(images, list):
        return {}
    return {
        image["file_name"]: canonical_id(image["id"])
        for image in images
        if isinstance(image, Mapping) and isinstance(image.get("file_name"), str) and "id" in image
    }
