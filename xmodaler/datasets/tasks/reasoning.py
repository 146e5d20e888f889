"""Mapper of statements that are true or false of two pictures: NLVR2, MaRVL, NLVR."""

import os
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..build import DATASETS_REGISTRY
from .records import JsonRecords
from .task_files import TaskFile

__all__ = ["JsonReasoningDataset", "truth_of"]

_TEXTS = ("sentence", "caption")
_PAIRS = (("left_image", "right_image"), ("left_img", "right_img"))
_TRUTHS = {"true": 1, "1": 1, "false": 0, "0": 0}


@DATASETS_REGISTRY.register()
class JsonReasoningDataset(JsonRecords):
    """Statements: IMAGES and SECOND_IMAGES, U_TOKENS_IDS, and U_TARGET_IDS (1 = true).

    A record has ``sentence`` (or ``caption``), ``label`` (true or false, also as text) and its
    pictures as

    * ``images``, a list of two, as X²-VLM was released with;
    * ``left_image`` and ``right_image``, or ``left_img`` and ``right_img`` (MaRVL);
    * NLVR2's ``identifier``: the pictures of ``dev-850-0-1`` are ``dev-850-0-img0.png`` and
      ``dev-850-0-img1.png``, in the folder ``directory`` where the record names one; another
      DATALOADER.IMAGE_NAME, such as ``dev/{}.jpg``, says otherwise;
    * ``image``, one picture alone (NLVR, Suhr et al., ACL 2017): it is shown twice.

    Files of a test without labels give samples without U_TARGET_IDS. In evaluation a sample has
    SPLITS, the ``language`` of the record or the name that the setting gives its file, and
    STATEMENT_IDS: NLVR2's identifier without the number of the pair, elsewhere the sentence.

    Args:
        image_name: Where pictures named by an identifier are.
        **records: As for :class:`~.records.JsonRecords`.
    """

    noun: ClassVar[str] = "statement"

    @configurable
    def __init__(self, *, image_name: str = "", **records: Any) -> None:
        super().__init__(**records)
        self.image_name = image_name

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL.MAX_SEQ_LEN."""
        return {**super().from_config(cfg, stage), "image_name": cfg.DATALOADER.IMAGE_NAME}

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        return with_labels(super().load_raw_data(cfg), self.stage, self.files)

    def records_of(self, entry: dict[str, Any], file: TaskFile) -> Iterable[dict[str, Any]]:
        key = next((key for key in _TEXTS if key in entry), _TEXTS[0])
        text, identifier = entry[key], str(entry.get("identifier") or "")
        record = {
            "texts": [text],
            "visual": self._pictures(entry, identifier),
            "split": str(entry.get("language") or file.name),
            "statement": _statement(identifier) or str(text).strip(),
        }
        name = identifier or entry.get("id")
        if name is not None:
            record["record_id"] = f"{file.name}-{name}" if file.name else str(name)
        if entry.get("label") is not None:
            record["label"] = truth_of(entry["label"])
        return [record]

    def _pictures(self, entry: dict[str, Any], identifier: str) -> list[str]:
        if "images" in entry:
            pictures = entry["images"]
        elif pair := next((pair for pair in _PAIRS if any(key in entry for key in pair)), None):
            pictures = [entry[key] for key in pair]
        elif entry.get("image"):
            pictures = [entry["image"]] * 2
        elif identifier.count("-") >= 3:
            stem = identifier.rpartition("-")[0]
            names = [f"{stem}-img{side}" for side in (0, 1)]
            directory = str(entry.get("directory", "")) if not self.image_name else ""
            pattern = os.path.join(directory, self.image_name or "{}.png")
            pictures = [pattern.format(name) for name in names]
        else:
            raise ValueError("it names no pictures")
        whole = isinstance(pictures, list) and len(pictures) == 2 and all(pictures)
        if not whole or not all(isinstance(picture, str) for picture in pictures):
            raise ValueError(f"its pictures are {pictures!r}; a statement has two")
        return pictures

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        mirror = self.may_mirror(record)
        first, second = (self.source.picture(one, mirror) for one in record["visual"])
        sample = {
            kfg.IMAGES: first,
            kfg.SECOND_IMAGES: second,
            kfg.U_TOKENS_IDS: self.tokens(record)[0],
        }
        if "label" in record:
            sample[kfg.U_TARGET_IDS] = np.array(record["label"])
        if self.stage != "train":
            sample[kfg.SPLITS] = record["split"]
            sample[kfg.STATEMENT_IDS] = record["statement"]
        return sample


def truth_of(label: Any) -> int:
    """1 or 0 of a label, which may be a bool, a number or a text in any case.

    Raises:
        ValueError: It is neither true nor false.
    """
    value = _TRUTHS.get(str(label).strip().lower())
    if value is None:
        raise ValueError(f"its label is {label!r}, neither true nor false")
    return value


def with_labels(records: list[dict[str, Any]], stage: str, files: str) -> list[dict[str, Any]]:
    """Records that all have labels or, of a test, none.

    Where some have labels, one without becomes a bad record.

    Raises:
        UserError: Training without any label.
    """
    usable = [record for record in records if "error" not in record]
    if not any("label" in record for record in usable):
        if stage == "train" and usable:
            raise UserError(f"no record of '{files}' has a label to learn from")
        return records
    for record in usable:
        if "label" not in record:
            record["error"] = "it has no label"
    return records


def _statement(identifier: str) -> str:
    """The name of a statement, without the pair of pictures that it is said of."""
    parts = identifier.split("-")
    return "-".join([*parts[:-2], parts[-1]]) if len(parts) >= 4 else ""
