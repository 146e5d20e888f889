"""Mapper of retrieval between pictures, or videos, and texts of one or several languages."""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.file_io import expand_path

from ..build import DATASETS_REGISTRY
from .records import JsonRecords
from .task_files import TaskFile, caption_entries

__all__ = ["JsonRetrievalDataset"]


@DATASETS_REGISTRY.register()
class JsonRetrievalDataset(JsonRecords):
    """Pictures or videos with their captions (X²-VLM, Zeng et al. 2023, and CCLM).

    Training has one sample a caption: IMAGES, U_TOKENS_IDS, and PAIR_IDS, equal for pairs of the
    same picture. Evaluation has one a picture, with the list of its captions and IDS
    ``[picture, [picture of each caption]]``; records of the same picture are put together. What
    a file is called in the setting (``en=...,de=...``) is a language of its own: training mixes
    languages, evaluation tells them apart by SPLITS.

    Files hold records with the fields DATALOADER.TASK.{IMAGE_KEY, TEXT_KEY, INDEX_KEY}; the text
    is a string, a list of them, or strings by language. Files of COCO's or Karpathy's form
    (``images`` with captions), and Flickr30k's and xFlickrCO's lines ``img_path, sentences, id``,
    are read too.

    Args:
        image_key: Field of the picture or video.
        text_key: Field of the captions.
        index_key: Field of what pictures are told apart by; without it that is ``image_key``.
        coco_folder: Where paths with ``COCO`` in them begin, if not where the others do.
        split: Of files of COCO's form, which pictures to take; '' takes all.
        **records: As for :class:`~.records.JsonRecords`.
    """

    noun = "picture"

    @configurable
    def __init__(
        self,
        *,
        image_key: str = "image",
        text_key: str = "caption",
        index_key: str = "image_id",
        coco_folder: str = "",
        split: str = "",
        **records: Any,
    ) -> None:
        super().__init__(**records)
        self.image_key = image_key
        self.text_key = text_key
        self.index_key = index_key
        self.coco_folder = os.path.abspath(expand_path(coco_folder)) if coco_folder else ""
        self.split = split

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        node = cfg.DATALOADER.TASK
        return {
            **super().from_config(cfg, stage),
            "image_key": node.IMAGE_KEY,
            "text_key": node.TEXT_KEY,
            "index_key": node.INDEX_KEY,
            "coco_folder": node.COCO_FOLDER,
            "split": cfg.DATALOADER[f"{stage.upper()}_SPLIT"],
        }

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        records = super().load_raw_data(cfg)
        numbers: dict[Any, int] = {}
        pictures: dict[Any, dict[str, Any]] = {}
        kept = []
        for record in records:
            if "error" not in record:
                record["pair"] = numbers.setdefault(record["index"], len(numbers))
                same = (record["language"], record["index"])
                if self.stage != "train" and pictures.setdefault(same, record) is not record:
                    pictures[same]["texts"] += record["texts"]
                    continue
            kept.append(record)
        return kept

    def entries_of(self, content: dict[str, Any], file: TaskFile) -> list[tuple[str, dict]]:
        if "images" not in content:
            return super().entries_of(content, file)
        keys = (self.image_key, self.text_key, self.index_key)
        return caption_entries(file.path, self.split, keys)

    def records_of(self, entry: dict[str, Any], file: TaskFile) -> Iterable[dict[str, Any]]:
        if self.image_key not in entry and "img_path" in entry:
            entry = {**entry, **self._of_flickr(entry)}
        visual, text = entry[self.image_key], entry[self.text_key]
        index = entry.get(self.index_key, visual)
        if not isinstance(index, str | int):
            raise ValueError(f"'{self.index_key}' is a {type(index).__name__}, no number or text")
        if isinstance(visual, str) and self.coco_folder and "COCO" in visual:
            visual = os.path.join(self.coco_folder, visual)
        by_language = text if isinstance(text, dict) else {file.name: text}
        for language, texts in by_language.items():
            texts = [texts] if isinstance(texts, str) else texts
            if not isinstance(texts, list) or not texts:
                raise ValueError(f"'{self.text_key}' holds no caption")
            common = {"visual": visual, "index": str(index), "language": language}
            if self.stage == "train":
                yield from ({**common, "texts": [one]} for one in texts)
            else:
                yield {**common, "texts": list(texts), "record_id": str(index)}

    def _of_flickr(self, entry: dict[str, Any]) -> dict[str, Any]:
        """The fields of a line of Flickr30k's or xFlickrCO's form under the names in use."""
        own = (self.image_key, self.text_key, self.index_key)
        there = ("img_path", "sentences", "id")
        return {
            mine: entry[field] for mine, field in zip(own, there, strict=True) if field in entry
        }

    def ids_of(self, record: dict[str, Any]) -> Any:
        if self.stage == "train":
            return record["index"]
        return [record["index"], [record["index"]] * len(record["ids"])]

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        sample = self.seen(record)
        if self.stage == "train":
            sample[kfg.U_TOKENS_IDS] = self.tokens(record)[0]
            sample[kfg.PAIR_IDS] = np.int64(record["pair"])
        else:
            sample[kfg.U_TOKENS_IDS] = self.tokens(record)
            sample[kfg.SPLITS] = record["language"]
        return sample
