"""Reading annotation files: encoded captions of X-modaler, COCO captions JSON, JSON lines."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

# What the file of a JSON line may be called, the most usual first.
_NAME_KEYS = ("image", "video", "file_name", "img_path")
_CAPTION_KEYS = ("captions", "caption", "sentences")
# Karpathy's files name the part of COCO's validation set that is used for training.
_SPLITS = {"restval": "train"}


@dataclass(frozen=True)
class Problem:
    """Something wrong in an annotation file.

    Attributes:
        where: File and line or record.
        reason: What is wrong.
        record: Id under which the record would have been known; '' when no record is lost.
    """

    where: str
    reason: str
    record: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


@dataclass
class CaptionedImage:
    """One picture of an annotation file.

    Attributes:
        image_id: Its id as a string.
        file_name: Its path relative to the image folder; '' when the file does not say.
        captions: Its sentences as written, empty ones left out.
        split: The split that the file gives it, or ''.
        where: File and line or record, for messages.
        info: Its other fields.
    """

    image_id: str
    file_name: str
    captions: list[str]
    split: str = ""
    where: str = ""
    info: dict[str, Any] = field(default_factory=dict)


def read_json(path: str | os.PathLike) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: It does not exist, is not UTF-8, or is not JSON; names line and column.
    """
    path = expand_path(path)
    try:
        with open(path, encoding="utf-8-sig") as file:
            return json.load(file)
    except FileNotFoundError:
        raise UserError(f"annotation file '{path}' does not exist") from None
    except json.JSONDecodeError as error:
        raise UserError(
            f"'{path}' line {error.lineno} column {error.colno} is not valid JSON: {error.msg}"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is not UTF-8 text: byte {error.start} cannot be read") from None
    except RecursionError:
        raise UserError(f"'{path}' is nested too deeply to be an annotation file") from None
    except OSError as error:
        raise UserError(f"annotation file '{path}' cannot be read: {error.strerror}") from None


def read_captions(
    path: str | os.PathLike, split: str = ""
) -> tuple[list[CaptionedImage], list[Problem]]:
    """Pictures and their captions from COCO captions JSON, Karpathy's JSON or JSON lines.

    A JSON file has ``images`` (``id``, ``file_name``, optional ``split``) and ``annotations``
    (``image_id``, ``caption``), or Karpathy's ``images`` (``cocoid`` or ``imgid``, ``filename``,
    ``split``, ``sentences`` with ``raw``). A ``.jsonl`` file has one object a line: ``image`` (or
    ``video``), ``captions`` (a list; or ``caption``, one string), optional ``id`` and ``split``;
    without ``id`` the number of the line is the id. Lines of Flickr30k, ``img_path`` and
    ``sentences``, have the name of the picture as their id.

    Args:
        path: The file; JSON lines are recognised by ``.jsonl``/``.ndjson`` or by their content.
        split: Keep only pictures whose ``split`` equals this; '' keeps all.

    Returns:
        The pictures in file order and what is wrong with the file.

    Raises:
        UserError: The file cannot be read at all, or holds no picture of the split.
    """
    path = Path(expand_path(path))
    images, problems = _read_lines(path) if _is_json_lines(path) else _read_coco(path)
    if split:
        found = Counter(image.split for image in images)
        images = [image for image in images if image.split == split]
        if not images:
            known = ", ".join(sorted(name or "(none)" for name in found)) or "(none)"
            raise UserError(f"'{path}' has no picture of the split '{split}'; its splits: {known}")
    if not images and not problems:
        raise UserError(f"'{path}' holds no picture; each needs a name and captions")
    return images, problems


def _is_json_lines(path: Path) -> bool:
    if path.suffix.lower() in (".jsonl", ".ndjson", ".jsonlines", ".jsonline"):
        return True
    if not path.is_file():
        return False
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        first = file.readline(1 << 20).strip()
    if not (first.startswith("{") and first.endswith("}")):
        return False
    try:
        record = json.loads(first)
    except json.JSONDecodeError:
        return False
    return "images" not in record and any(key in record for key in ("image", "video", "img_path"))


def _read_lines(path: Path) -> tuple[list[CaptionedImage], list[Problem]]:
    images: list[CaptionedImage] = []
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    try:
        with open(path, "rb") as file:
            lines = list(enumerate(file.read().split(b"\n"), start=1))
    except OSError as error:
        raise UserError(f"annotation file '{path}' cannot be read: {error.strerror}") from None
    for number, line in lines:
        if not line.strip():
            continue
        where = f"{path.name} line {number}"
        try:
            image, found = _image_of_line(json.loads(line.decode("utf-8-sig")), where, number)
            if image.image_id in seen:
                raise ValueError(f"id '{image.image_id}' is already on line {seen[image.image_id]}")
        except json.JSONDecodeError as error:
            problem = f"not valid JSON: {error.msg} at column {error.colno}"
            problems.append(Problem(where, problem, f"line {number}"))
        except UnicodeDecodeError:
            problems.append(Problem(where, "not UTF-8 text", f"line {number}"))
        except (ValueError, RecursionError) as error:
            problems.append(Problem(where, str(error), f"line {number}"))
        else:
            seen[image.image_id] = number
            images.append(image)
            problems.extend(found)
    return images, problems


def _image_of_line(record: Any, where: str, number: int) -> tuple[CaptionedImage, list[Problem]]:
    if not isinstance(record, dict):
        raise ValueError('not an object {"image": ..., "captions": [...]}')
    name = next((record[key] for key in _NAME_KEYS if key in record), "")
    flickr = "img_path" in record and isinstance(name, str)
    otherwise = Path(name).stem if flickr else number
    image_id = record.get("id", record.get("image_id", otherwise))
    captions = next((record[key] for key in _CAPTION_KEYS if key in record), [])
    captions = [captions] if isinstance(captions, str) else captions
    if isinstance(image_id, bool) or not isinstance(image_id, str | int):
        raise ValueError(f"id {image_id!r} is neither a string nor an integer")
    if not isinstance(name, str) or not (name or "id" in record or "image_id" in record):
        raise ValueError("'image', the file name (or 'video'), is missing or not a string")
    if not isinstance(captions, list):
        raise ValueError("'captions' is not a list of strings")
    kept, problems = [], []
    for k, caption in enumerate(captions):
        reason = _caption_fault(caption)
        if reason:
            problems.append(Problem(where, f"caption {k + 1} {reason}"))
        else:
            kept.append(caption)
    info = {
        key: value
        for key, value in record.items()
        if key not in ("id", "image_id", "split", *_CAPTION_KEYS, *_NAME_KEYS)
    }
    split = record.get("split", "")
    return CaptionedImage(str(image_id), name, kept, str(split), where, info), problems


def _caption_fault(caption: Any) -> str:
    if not isinstance(caption, str):
        return f"is {type(caption).__name__}, not a string"
    return "" if caption.strip() else "is empty"


def _read_coco(path: Path) -> tuple[list[CaptionedImage], list[Problem]]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise UserError(
            f"'{path}' is not in COCO captions format: an object with the lists 'images' and "
            "'annotations' is needed (or JSON lines, in a file named .jsonl)"
        )
    problems: list[Problem] = []
    by_id: dict[str, CaptionedImage] = {}
    for k, entry in enumerate(content["images"]):
        where = f"{path.name} images[{k}]"
        image_id = _first(entry, "id", "cocoid", "imgid")
        if isinstance(image_id, bool) or not isinstance(image_id, str | int):
            problems.append(Problem(where, "no 'id' that is an integer or a string", where))
        elif str(image_id) in by_id:
            reason = f"id {image_id} is already that of {by_id[str(image_id)].where}"
            problems.append(Problem(where, reason, where))
        else:
            image = _image_of_entry(entry, str(image_id), f"{where} (id {image_id})")
            for k, sentence in enumerate(_sentences(entry)):
                if reason := _caption_fault(sentence):
                    problems.append(Problem(image.where, f"sentence {k + 1} {reason}"))
                else:
                    image.captions.append(sentence)
            by_id[image.image_id] = image
    for caption, image_id, problem in _coco_captions(path, content.get("annotations", [])):
        if problem is None and image_id not in by_id:
            problem = Problem(f"{path.name}", f"a caption belongs to the unknown image {image_id}")
        if problem is not None:
            problems.append(problem)
        else:
            by_id[image_id].captions.append(caption)
    return list(by_id.values()), problems


def _first(entry: Any, *keys: str) -> Any:
    found = (entry[key] for key in keys if key in entry) if isinstance(entry, dict) else ()
    return next(iter(found), None)


def _image_of_entry(entry: dict[str, Any], image_id: str, where: str) -> CaptionedImage:
    name, split = _first(entry, "file_name", "filename"), str(entry.get("split", ""))
    if isinstance(entry.get("filepath"), str) and isinstance(name, str):
        name = os.path.join(entry["filepath"], name)
    own = ("id", "file_name", "filename", "filepath", "split", "sentences")
    info = {key: entry[key] for key in entry if key not in own}
    name = name if isinstance(name, str) else ""
    return CaptionedImage(image_id, name, [], _SPLITS.get(split, split), where, info)


def _sentences(entry: dict[str, Any]) -> list[Any]:
    """The sentences of an image of Karpathy's: as written, or their words where that is lost."""
    found = entry.get("sentences")
    if not isinstance(found, list):
        return []
    return [
        sentence.get("raw", " ".join(map(str, sentence.get("tokens") or [])))
        if isinstance(sentence, dict)
        else sentence
        for sentence in found
    ]


def _coco_captions(path: Path, annotations: Any) -> Iterator[tuple[str, str, Problem | None]]:
    if not isinstance(annotations, list):
        raise UserError(f"'annotations' of '{path}' is not a list of captions")
    for k, entry in enumerate(annotations):
        where = f"{path.name} annotations[{k}]"
        if not isinstance(entry, dict) or "image_id" not in entry:
            yield "", "", Problem(where, "no 'image_id'")
            continue
        where += f" (image {entry['image_id']})"
        reason = _caption_fault(entry.get("caption"))
        problem = Problem(where, f"its caption {reason}") if reason else None
        yield entry.get("caption"), str(entry["image_id"]), problem


def read_encoded_captions(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Records with encoded captions, as X-modaler keeps them.

    Args:
        path: A pickle (read without executing anything), a ``.json`` or a ``.npz`` file. Where it
            does not exist, the same name with another of these endings is read.

    Returns:
        A list of dicts with ``image_id`` (str) and, where the file has them, ``tokens_ids`` and
        ``target_ids``, int arrays (captions, L), and whatever else a record holds.

    Raises:
        UserError: No such file, or not such a list.
    """
    path = expand_path(path)
    stem = os.path.splitext(path)[0]
    choices = [path, stem + ".pkl", stem + ".json", stem + ".npz"]
    found = next((name for name in choices if os.path.isfile(name)), None)
    if found is None:
        raise UserError(
            f"annotations '{path}' do not exist (nor the same as .json or .npz); "
            "DATALOADER.ANNO_FOLDER must name the folder that holds them"
        )
    if found.endswith(".npz"):
        return _records_from_npz(found)
    if found.endswith(".json"):
        records = read_json(found)
    else:
        from xmodaler.utils import safe_pickle

        records = safe_pickle.load(found, encoding="bytes")
    if not isinstance(records, list):
        raise UserError(f"'{found}' holds a {type(records).__name__}, not a list of records")
    return [_encoded_record(record, f"{found} record {k}") for k, record in enumerate(records)]


def _encoded_record(record: Any, where: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        return {"image_id": where, "error": f"is a {type(record).__name__}, not a dict"}
    # Pickles of Python 2 have byte strings as keys and values.
    record = {_text(key): _text(value) for key, value in record.items()}
    key = "video_id" if "video_id" in record and "image_id" not in record else "image_id"
    if key not in record:
        return {"image_id": where, "error": "has no 'image_id'"}
    record[key] = str(record[key])
    try:
        for name, dtype in (("tokens_ids", np.uint32), ("target_ids", np.int32)):
            if name in record:
                record[name] = np.asarray(record[name]).astype(dtype)
                if record[name].ndim != 2:
                    raise ValueError
    except (ValueError, TypeError, OverflowError):
        return {key: record[key], "error": f"{where} has no integer table (captions, length)"}
    return record


def _text(value: Any) -> Any:
    return value.decode("utf-8", errors="replace") if isinstance(value, bytes) else value


def _records_from_npz(path: str) -> list[dict[str, Any]]:
    from .feature_store import read_arrays

    arrays = read_arrays(path)
    lacking = {"image_id", "captions", "tokens_ids", "target_ids"} - set(arrays)
    if lacking:
        raise UserError(f"'{path}' has no array named {', '.join(sorted(lacking))}")
    ends = np.cumsum(arrays["captions"])[:-1]
    tables = [np.split(arrays[name], ends) for name in ("tokens_ids", "target_ids")]
    ids = arrays["image_id"].tolist()
    return [
        {"image_id": str(image_id), "tokens_ids": tokens, "target_ids": targets}
        for image_id, tokens, targets in zip(ids, *tables, strict=True)
    ]
