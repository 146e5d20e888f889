"""Lines of JSON for pre-training, from annotations of captions, boxes and phrases."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xmodaler.datasets.annotations import read_json
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["caption_lines", "region_lines", "write_lines"]

Record = dict[str, Any]


def caption_lines(path: str, split: str = "", folder: str = "") -> Iterator[Record]:
    """``{image, caption: [...]}`` of every picture that has captions.

    Args:
        path: COCO captions: ``images`` with ``id`` and ``file_name``, ``annotations`` with
            ``image_id`` and ``caption``.
        split: Leave out pictures whose ``split`` is another.
        folder: Put before file names.

    Raises:
        UserError: It is no such file.
    """
    for image, annotations in _by_picture(path, split):
        captions = [str(a["caption"]) for a in annotations if a.get("caption")]
        if captions:
            yield {"image": _place(image, folder), "caption": captions}


def region_lines(path: str, split: str = "", folder: str = "") -> Iterator[Record]:
    """``{image, caption, elems: [{bb, caption}]}`` of every picture that has described boxes.

    A box is described by the ``phrase`` or ``caption`` of its annotation, or else by the name of
    its category. Annotations with several boxes describe none of them alone and are left out. The
    picture has a caption where annotations have a ``sentence``.

    Args:
        path: ``images`` as for :func:`caption_lines`, ``annotations`` with ``image_id`` and
            ``bbox`` or ``boxes`` (``[x, y, width, height]`` in pixels), and, where there is no
            text, ``category_id`` with ``categories``.
        split: Leave out pictures whose ``split`` is another.
        folder: Put before file names.

    Raises:
        UserError: It is no such file.
    """
    content = _read(path)
    names = {c["id"]: str(c["name"]) for c in content.get("categories", [])}
    for image, annotations in _by_picture(path, split):
        elements = [e for a in annotations if (e := _element(a, names)) is not None]
        sentences = list(dict.fromkeys(a["sentence"] for a in annotations if a.get("sentence")))
        if elements:
            caption = {"caption": sentences} if sentences else {}
            yield {"image": _place(image, folder), **caption, "elems": elements}


def write_lines(records: Iterable[Record], path: str | os.PathLike) -> int:
    """Write one JSON object a line; returns how many."""
    number = 0
    with atomic_write(expand_path(path), "w") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            number += 1
    return number


def _element(annotation: Mapping[str, Any], names: Mapping[Any, str]) -> Record | None:
    boxes = annotation.get("boxes", [annotation["bbox"]] if "bbox" in annotation else [])
    text = annotation.get("phrase") or annotation.get("caption")
    text = text or names.get(annotation.get("category_id"))
    if len(boxes) != 1 or not text:
        return None
    return {"bb": list(boxes[0]), "caption": str(text)}


def _by_picture(path: str, split: str) -> Iterator[tuple[Record, list[Record]]]:
    content = _read(path)
    annotations: dict[Any, list[Record]] = {}
    try:
        for annotation in content["annotations"]:
            annotations.setdefault(annotation["image_id"], []).append(annotation)
        for image in content["images"]:
            if not split or image.get("split") == split:
                yield image, annotations.get(image["id"], [])
    except (KeyError, TypeError) as error:
        raise UserError(f"'{path}' is no file of annotations as COCO has them: {error}") from None


def _read(path: str) -> Record:
    content = read_json(expand_path(path))
    if not isinstance(content, dict) or not {"images", "annotations"} <= content.keys():
        raise UserError(
            f"'{path}' is no file of annotations; an object with 'images' and 'annotations' is "
            "expected"
        )
    return content


def _place(image: Mapping[str, Any], folder: str) -> str:
    return os.path.join(folder, str(image["file_name"]))
