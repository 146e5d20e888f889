"""The sentences of any file that people write about pictures: captions, questions, answers."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from xmodaler.datasets.annotations import read_captions, read_json
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

_TEXT_FIELDS = ("caption", "captions", "sentences", "raw", "question", "text", "sentence")
_ANSWER_FIELDS = ("answer", "multiple_choice_answer")
# Lists of words, some of which are lists of object numbers.
_WORD_LIST_FIELDS = ("question", "answer_choices", "rationale_choices")
_LINES = (".jsonl", ".jsonline", ".jsonlines", ".ndjson")


def read_texts(
    paths: Iterable[str | os.PathLike], split: str = "", answers: bool = True
) -> list[str]:
    """All sentences of files, in file order.

    * ``.txt``: one sentence a line; ``.tsv``: the first column of each line.
    * JSON and JSON lines: the values of ``caption(s)``, ``sentences``, ``raw``, ``question``,
      ``text``, and of ``answer`` and ``multiple_choice_answer``; the word lists of VCR.

    Args:
        paths: The files.
        split: Leave out objects whose ``split`` is another (and captions of their pictures).
        answers: Take answers too.

    Raises:
        UserError: A file cannot be read or holds no sentence.
    """
    fields = _TEXT_FIELDS + (_ANSWER_FIELDS if answers else ())
    texts: list[str] = []
    for path in paths:
        found = [text for text in _of_file(Path(expand_path(path)), split, fields) if text]
        if not found:
            of_split = f" of the split '{split}'" if split else ""
            raise UserError(
                f"'{path}' holds no sentence{of_split}; captions, questions, tsv or lines of text "
                "are read"
            )
        texts.extend(found)
    return texts


def _of_file(path: Path, split: str, fields: tuple[str, ...]) -> Iterator[str]:
    suffix = path.suffix.lower()
    if suffix in (".txt", ".tsv"):
        for _, line in _lines(path):
            yield (line.split("\t")[0] if suffix == ".tsv" else line).strip().strip('"')
    elif suffix in _LINES:
        for number, line in _lines(path):
            yield from _walk(_parsed(line, path, number), split, fields)
    else:
        content = read_json(path)
        if isinstance(content, dict) and {"images", "annotations"} <= set(content):
            images, _ = read_captions(path, split)
            captions = [caption.strip() for image in images for caption in image.captions]
            if captions:
                yield from captions
                return
        yield from _walk(content, split, fields)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"'{path}' cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text: byte {error.start} cannot be read") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.strip("\r")


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise UserError(f"'{path}' line {number} is not valid JSON") from None


def _walk(value: Any, split: str, fields: tuple[str, ...]) -> Iterator[str]:
    if isinstance(value, list):
        for entry in value:
            yield from _walk(entry, split, fields)
    elif isinstance(value, dict):
        if split and value.get("split", split) != split:
            return
        for key, entry in value.items():
            if key in fields and isinstance(entry, str):
                yield entry.strip()
            elif key in _WORD_LIST_FIELDS and isinstance(entry, list):
                yield from _word_lists(entry)
            elif key in fields and isinstance(entry, list) and _all_strings(entry):
                yield from (text.strip() for text in entry)
            else:
                yield from _walk(entry, split, fields)


def _all_strings(entries: list[Any]) -> bool:
    return all(isinstance(entry, str) for entry in entries)


def _word_lists(entries: list[Any]) -> Iterator[str]:
    """A sentence per innermost list that has words; numbers of objects are no words."""
    words = [entry for entry in entries if isinstance(entry, str)]
    if words:
        yield " ".join(words)
        return
    for entry in entries:
        if isinstance(entry, list):
            yield from _word_lists(entry)
