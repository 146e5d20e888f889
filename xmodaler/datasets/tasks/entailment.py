"""Mapper of texts that follow from a picture, contradict it, or do neither: SNLI-VE, xVNLI."""

import logging
import os
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg

from ..build import DATASETS_REGISTRY
from .reasoning import with_labels
from .records import JsonRecords
from .task_files import TaskFile

__all__ = ["LABELS", "JsonEntailmentDataset"]

LABELS = ("contradiction", "entailment", "neutral")
"""What the labels 0, 1 and 2 mean."""

_PICTURES = ("image", "Flikr30kID", "Flickr30kID", "Flickr30K_ID")
_logger = logging.getLogger(__name__)


@DATASETS_REGISTRY.register()
class JsonEntailmentDataset(JsonRecords):
    """Hypotheses about pictures: IMAGES, U_TOKENS_IDS and U_TARGET_IDS, see :data:`LABELS`.

    A record has ``sentence2``, ``gold_label`` (one of the labels, or its number) and ``Flikr30kID``
    (or ``image``), a picture with or without ending: without one it is '{}.jpg' or what
    DATALOADER.IMAGE_NAME says. Records on whose label people did not agree (``-``) are left out.

    In evaluation a sample has SPLITS, the ``language`` of the record or the name that the setting
    gives its file: ``en=test_en.jsonl,ar=test_ar.jsonl``.

    Args:
        image_name: The file of a picture that is named without an ending.
        **records: As for :class:`~.records.JsonRecords`.
    """

    noun: ClassVar[str] = "hypothesis"
    labels: ClassVar[tuple[str, ...]] = LABELS

    @configurable
    def __init__(self, *, image_name: str = "", **records: Any) -> None:
        super().__init__(**records)
        self.image_name = image_name or "{}.jpg"
        self._undecided = 0

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL.MAX_SEQ_LEN."""
        return {**super().from_config(cfg, stage), "image_name": cfg.DATALOADER.IMAGE_NAME}

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        self._undecided = 0
        records = super().load_raw_data(cfg)
        if self._undecided:
            _logger.info(
                "%d %s records without an agreed label are left out", self._undecided, self.stage
            )
        return with_labels(records, self.stage, self.files)

    def records_of(self, entry: dict[str, Any], file: TaskFile) -> Iterable[dict[str, Any]]:
        label = entry.get("gold_label", entry.get("label"))
        if label == "-":
            self._undecided += 1
            return []
        picture = next((str(entry[key]) for key in _PICTURES if entry.get(key)), "")
        if not picture:
            raise KeyError("Flikr30kID")
        if not os.path.splitext(picture)[1]:
            picture = self.image_name.format(picture)
        record = {
            "texts": [entry["sentence2"]],
            "visual": picture,
            "split": str(entry.get("language") or file.name),
        }
        if label is not None:
            record["label"] = _number(label)
        return [record]

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        sample = super().sample_of(record)
        if "label" in record:
            sample[kfg.U_TARGET_IDS] = np.array(record["label"])
        if self.stage != "train":
            sample[kfg.SPLITS] = record["split"]
        return sample


def _number(label: Any) -> int:
    names = {name: number for number, name in enumerate(LABELS)}
    names |= {str(number): number for number in range(len(LABELS))}
    number = names.get(str(label).strip().lower())
    if number is None:
        raise ValueError(f"its label is {label!r}; there are {', '.join(LABELS)}")
    return number
