"""Caption files as data sets publish them: the Karpathy splits and MSR-VTT's videodatainfo."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xmodaler.datasets.annotations import Problem, read_json
from xmodaler.utils.errors import UserError

_SPLITS = {"restval": "train", "validate": "val", "validation": "val"}


@dataclass
class Captioned:
    """One picture or video and its sentences.

    Attributes:
        item_id: Its id.
        file_name: Its file, '' when the source does not say.
        split: ``"train"``, ``"val"`` or ``"test"``.
        sentences: Words of each sentence.
        texts: The sentences as written, one for each of ``sentences``.
    """

    item_id: str
    file_name: str
    split: str
    sentences: list[list[str]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def read_karpathy(
    path: str | os.PathLike, id_field: str = ""
) -> tuple[list[Captioned], list[Problem]]:
    """The items of a Karpathy-style file, such as ``dataset_coco.json``.

    ``{"images": [{"filename", "split", "imgid", "cocoid", "sentences": [{"tokens", "raw"}]}]}``;
    the split ``restval`` counts as training.

    Args:
        path: The file.
        id_field: The field that becomes the id; '' takes ``cocoid``, else ``imgid``. Of
            ``filename`` the ending is cut off, since features are found by it.

    Returns:
        The items in file order, and what is wrong with the others and with sentences.

    Raises:
        UserError: The file is unreadable or of another form.
    """
    content = read_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not any(
        isinstance(entry, dict) and "sentences" in entry for entry in entries
    ):
        raise UserError(
            f"'{path}' is no Karpathy-style file: an object with the list 'images' is needed, each "
            "with 'split' and 'sentences' of 'tokens' and 'raw'"
        )
    name = os.path.basename(os.fspath(path))
    items, problems = [], []
    for k, entry in enumerate(entries):
        where = f"{name} images[{k}]"
        try:
            item, found = _karpathy_item(entry, where, id_field)
        except ValueError as error:
            problems.append(Problem(where, str(error), where))
        else:
            items.append(item)
            problems.extend(found)
    return _without_doubles(items, name, problems), problems


def _karpathy_item(entry: Any, where: str, id_field: str) -> tuple[Captioned, list[Problem]]:
    if not isinstance(entry, dict):
        raise ValueError("not an object")
    names = [id_field] if id_field else ["cocoid", "imgid"]
    item_id = next((entry[name] for name in names if name in entry), None)
    if isinstance(item_id, bool) or not isinstance(item_id, str | int):
        raise ValueError(f"no {' and no '.join(repr(name) for name in names)} that is an id")
    if id_field == "filename":
        item_id = Path(str(item_id)).stem
    sentences, split = entry.get("sentences"), entry.get("split")
    if not isinstance(sentences, list):
        raise ValueError("'sentences' is missing or not a list")
    if not isinstance(split, str) or not split:
        raise ValueError("'split' is missing or not a word")
    file_name = os.path.join(str(entry.get("filepath", "")), str(entry.get("filename", "")))
    item = Captioned(str(item_id), file_name, _SPLITS.get(split, split))
    problems = []
    for number, sentence in enumerate(sentences):
        tokens = sentence.get("tokens") if isinstance(sentence, dict) else None
        if not isinstance(tokens, list) or not all(isinstance(word, str) for word in tokens):
            reason = f"sentence {number} has no list 'tokens' of words"
            problems.append(Problem(f"{where} (id {item_id})", reason))
            continue
        raw = sentence.get("raw")
        text = raw.strip() if isinstance(raw, str) else " ".join(tokens)
        problems.extend(_add_sentence(item, tokens, text, f"{where} (id {item_id})", number))
    return item, problems


def read_videodatainfo(
    paths: Sequence[str | os.PathLike], use_names: bool = False
) -> tuple[list[Captioned], list[Problem]]:
    """The videos of MSR-VTT's ``*videodatainfo.json`` files.

    ``{"videos": [{"video_id": "video0", "id": 0, "split": "train"}], "sentences": [{"video_id",
    "caption"}]}``; the split ``validate`` becomes ``val``, captions are split at spaces.

    Args:
        paths: The files; their videos follow each other.
        use_names: Whether ids are the names (``video0``) and not the numbers (``0``).

    Returns:
        The videos in file order, and what is wrong with others and with sentences.

    Raises:
        UserError: A file is unreadable or of another form.
    """
    items: list[Captioned] = []
    problems: list[Problem] = []
    for path in paths:
        content, name = read_json(path), os.path.basename(os.fspath(path))
        lists = [content.get(k) if isinstance(content, dict) else None for k in _VIDEO_LISTS]
        if not all(isinstance(found, list) for found in lists):
            raise UserError(
                f"'{path}' is no videodatainfo file: an object with the lists 'videos' and "
                "'sentences' is needed"
            )
        videos, found = _videos(lists[0], name, use_names)
        problems.extend(found)
        problems.extend(_add_video_sentences(videos, lists[1], name))
        items.extend(videos.values())
    return _without_doubles(items, "the files", problems), problems


_VIDEO_LISTS = ("videos", "sentences")


def _videos(
    entries: list[Any], name: str, use_names: bool
) -> tuple[dict[str, Captioned], list[Problem]]:
    videos: dict[str, Captioned] = {}
    problems = []
    for k, entry in enumerate(entries):
        where = f"{name} videos[{k}]"
        video = entry.get("video_id") if isinstance(entry, dict) else None
        split = entry.get("split") if isinstance(entry, dict) else None
        if not isinstance(video, str) or not isinstance(split, str):
            problems.append(Problem(where, "no 'video_id' and 'split' that are words", where))
            continue
        number = entry.get("id", video.removeprefix("video"))
        if isinstance(number, bool) or not isinstance(number, str | int):
            problems.append(Problem(where, f"its 'id' {number!r} is no number", where))
            continue
        if video in videos:
            problems.append(Problem(where, f"the video '{video}' occurs twice", where))
            continue
        item_id = video if use_names else str(number)
        videos[video] = Captioned(item_id, f"{video}.mp4", _SPLITS.get(split, split))
    return videos, problems


def _add_video_sentences(
    videos: dict[str, Captioned], entries: list[Any], name: str
) -> Iterable[Problem]:
    problems = []
    for k, entry in enumerate(entries):
        where = f"{name} sentences[{k}]"
        caption = entry.get("caption") if isinstance(entry, dict) else None
        video = videos.get(str(entry.get("video_id"))) if isinstance(entry, dict) else None
        if not isinstance(caption, str):
            problems.append(Problem(where, "no 'caption' that is text"))
        elif video is None:
            problems.append(
                Problem(where, f"belongs to the unknown video {entry.get('video_id')!r}")
            )
        else:
            problems.extend(_add_sentence(video, [caption], caption.strip(), where, k))
    return problems


def _add_sentence(
    item: Captioned, words: list[str], text: str, where: str, number: int
) -> list[Problem]:
    # A word with a space or line break in it would be two lines of the vocabulary.
    words = [part for word in words for part in word.split()]
    if not words:
        return [Problem(where, f"sentence {number} has no word")]
    try:
        f"{text} {' '.join(words)}".encode()
    except UnicodeEncodeError:
        return [Problem(where, f"sentence {number} has characters that are not Unicode text")]
    item.sentences.append(words)
    item.texts.append(text or " ".join(words))
    return []


def _without_doubles(items: list[Captioned], name: str, problems: list[Problem]) -> list[Captioned]:
    counts = Counter(item.item_id for item in items)
    first: dict[str, Captioned] = {}
    for item in items:
        if item.item_id in first:
            reason = f"the id {item.item_id} occurs {counts[item.item_id]} times; the first is kept"
            problems.append(Problem(name, reason, f"id {item.item_id}"))
        else:
            first[item.item_id] = item
    return list(first.values())
