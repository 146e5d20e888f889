"""Lists of pictures: which file an id has and which split it belongs to."""

import os
from dataclasses import dataclass, field
from string import Formatter

from xmodaler.utils.errors import UserError

from .annotations import read_json


@dataclass
class PictureList:
    """Files and splits by picture id.

    Attributes:
        files: The file name of each id, relative to the picture folder.
        splits: The split of each id that has one.
    """

    files: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)


def read_picture_list(path: str | os.PathLike) -> PictureList:
    """The ``images[]`` of a JSON file: ``id``, ``file_name`` and optionally ``split``.

    Raises:
        UserError: The file is unreadable, of another form, or gives an id twice.
    """
    content = read_json(path)
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"'{path}' is no list of pictures: an object with the list 'images' is needed, each "
            "with 'id' and 'file_name'"
        )
    pictures = PictureList()
    for k, entry in enumerate(entries):
        image_id = entry.get("id") if isinstance(entry, dict) else None
        if isinstance(image_id, bool) or not isinstance(image_id, str | int):
            raise UserError(f"'{path}' images[{k}] has no 'id' that is an integer or a string")
        if str(image_id) in pictures.files:
            raise UserError(f"'{path}' images[{k}] has the id {image_id} of an earlier picture")
        pictures.files[str(image_id)] = str(entry.get("file_name") or "")
        if entry.get("split"):
            pictures.splits[str(image_id)] = str(entry["split"])
    return pictures


class PictureNames:
    """The file name of a picture id.

    Args:
        pictures: A list of pictures, or None.
        pattern: How names are made of ids where the list says nothing, such as
            ``COCO_val2014_{:012d}.jpg``; '' takes no name.

    Raises:
        UserError: The pattern has not exactly one place for the id.
    """

    def __init__(self, pictures: PictureList | None = None, pattern: str = "") -> None:
        self.pictures, self.pattern = pictures, pattern
        if not pattern:
            return
        try:
            places = [part for part in Formatter().parse(pattern) if part[1] is not None]
            self._numeric = len(places) == 1 and "d" in places[0][2]
            if len(places) != 1 or places[0][1]:
                raise ValueError
            pattern.format(1 if self._numeric else "1")
        except (ValueError, IndexError, KeyError, TypeError):
            raise UserError(
                f"DATALOADER.IMAGE_NAME '{pattern}' must have one place for the id, such as "
                "'COCO_val2014_{:012d}.jpg' or '{}.jpg'"
            ) from None

    def __call__(self, image_id: str) -> str:
        """The file name; '' when nothing says it."""
        if self.pictures is not None and self.pictures.files.get(image_id):
            return self.pictures.files[image_id]
        if not self.pattern:
            return ""
        if not self._numeric:
            return self.pattern.format(image_id)
        return self.pattern.format(int(image_id)) if image_id.isdecimal() else ""
