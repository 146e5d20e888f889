"""Annotations of referring expressions, as REFER keeps them (Kazemzadeh et al., EMNLP 2014)."""

import glob
import os
from collections.abc import Iterator, Sequence
from typing import Any

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from ..annotations import read_json

__all__ = ["ReferFolder", "read_refs"]

INSTANCES = "instances.json"
_PICKLES = (".p", ".pkl")


class ReferFolder:
    """Which boxes of which pictures are referred to.

    Args:
        refs: ``refs(<who split them>).p`` as it was released, the same as JSON, or a folder with
            one such file.
        instances: COCO instances with the boxes; '' for ``instances.json`` beside ``refs``.

    Raises:
        UserError: A file is missing or of another form.
    """

    def __init__(self, refs: str, instances: str = "") -> None:
        path = _refs_file(expand_path(refs))
        file = expand_path(instances) if instances else os.path.join(_folder(path), INSTANCES)
        self.path = path
        self.refs = {_key(ref, "ref_id", path): ref for ref in read_refs(path)}
        content = read_json(file)
        if not isinstance(content, dict) or not isinstance(content.get("annotations"), list):
            raise UserError(f"'{file}' has no 'annotations'; it is to hold COCO instances")
        self._boxes = {
            _key(entry, "id", file): entry.get("bbox") for entry in content["annotations"]
        }
        self._pictures = {_key(entry, "id", file): entry for entry in content.get("images", [])}

    def place(self, ref_id: Any) -> dict[str, Any]:
        """What is referred to.

        Returns:
            ``boxes`` (one), ``split`` and, where it is known, ``size`` and ``file_name`` of the
            picture.

        Raises:
            ValueError: Nothing is known by that name.
        """
        ref = self.refs.get(str(ref_id))
        if ref is None:
            raise ValueError(f"ref_id {ref_id} is not in '{self.path}'")
        box = self._boxes.get(str(ref.get("ann_id")))
        if box is None:
            raise ValueError(f"ref_id {ref_id} has the box {ref.get('ann_id')}, which is unknown")
        picture = self._pictures.get(str(ref.get("image_id")), {})
        found = {"boxes": [box], "split": str(ref.get("split") or "")}
        if picture.get("width") and picture.get("height"):
            found["size"] = [picture["width"], picture["height"]]
        # Names in refs are those of single boxes, COCO_train2014_000000581857_16.jpg.
        name = picture.get("file_name") or ref.get("file_name")
        return {**found, **({"file_name": str(name)} if name else {})}


def read_refs(path: str) -> list[dict[str, Any]]:
    """The entries of a file of referring expressions, a pickle or JSON.

    Raises:
        UserError: It is neither, or no list of them.
    """
    if path.lower().endswith(_PICKLES):
        from xmodaler.utils import safe_pickle

        # Written by Python 2; nothing that it names is run.
        content = safe_pickle.load(path, encoding="latin1")
    else:
        content = read_json(path)
    entries = [ref for ref in content if isinstance(ref, dict)] if isinstance(content, list) else []
    if not entries or "ref_id" not in entries[0]:
        raise UserError(f"'{path}' is no list of referring expressions, each with a 'ref_id'")
    return entries


def sentences_of(ref: dict[str, Any]) -> Iterator[str]:
    """The expressions of an entry, as they were written."""
    for sentence in ref.get("sentences") or ():
        text = sentence
        if isinstance(sentence, dict):
            text = sentence.get("raw") or sentence.get("sent") or " ".join(sentence["tokens"])
        yield text


def _refs_file(path: str) -> str:
    if not os.path.isdir(path):
        return path
    endings = (*_PICKLES, ".json")
    found: Sequence[str] = [
        file
        for file in sorted(glob.glob(os.path.join(glob.escape(path), "refs*")))
        if file.lower().endswith(endings)
    ]
    if len(found) != 1:
        listed = ", ".join(map(os.path.basename, found)) or "none"
        raise UserError(
            f"DATALOADER.TASK.REFER is the folder '{path}', which holds {listed} of refs*.p and "
            "refs*.json; name the file to use"
        )
    return found[0]


def _folder(path: str) -> str:
    return os.path.dirname(path) or "."


def _key(entry: Any, name: str, path: str) -> str:
    if not isinstance(entry, dict) or name not in entry:
        raise UserError(f"an entry of '{path}' has no '{name}'")
    return str(entry[name])
