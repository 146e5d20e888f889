"""Mapper of pictures and their captions."""

import os
import re
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional.func_masking import WordMasking
from xmodaler.utils.errors import UserError

from ..build import DATASETS_REGISTRY
from ..captions import choose_captions
from ..pretrain import CaptionTexts, build_masking
from .records import JsonRecords
from .task_files import TaskFile, caption_entries

__all__ = ["JsonCaptionDataset"]


@DATASETS_REGISTRY.register()
class JsonCaptionDataset(JsonRecords):
    """Pictures with captions of which words are to be told from left to right (X²-VLM).

    Files hold records with the fields DATALOADER.TASK.{IMAGE_KEY, TEXT_KEY, INDEX_KEY}, the text
    a string or a list of them, or are of COCO's or Karpathy's form. A picture without an id has
    the last number of its name, as COCO's files have, or else its name.

    Training has one sample a caption or, with DATALOADER.SEQ_PER_SAMPLE S > 1, one a picture with
    S captions drawn from its own: IMAGES, and U_TOKENS_IDS with U_POSITIONS and U_TARGET_IDS (-1
    where nothing is to be told), see :class:`~..pretrain.texts.CaptionTexts`. Captions keep their
    punctuation. Evaluation has one sample a picture: IMAGES.

    Args:
        masking: Hides words.
        prompt: What every caption begins with.
        interleaved: Masks are put in front of words and not in their place.
        captions: S.
        image_key: Field of the picture.
        text_key: Field of the captions.
        index_key: Field of the id of the picture.
        split: Of files of COCO's form, which pictures to take; '' takes all.
        **records: As for :class:`~.records.JsonRecords`.
    """

    noun: ClassVar[str] = "picture"

    @configurable
    def __init__(
        self,
        *,
        masking: WordMasking,
        prompt: str = "",
        interleaved: bool = False,
        captions: int = 1,
        image_key: str = "image",
        text_key: str = "caption",
        index_key: str = "image_id",
        split: str = "",
        **records: Any,
    ) -> None:
        super().__init__(**records)
        self.captions = max(1, captions)
        self.image_key = image_key
        self.text_key = text_key
        self.index_key = index_key
        self.split = split
        self.interleaved = interleaved
        self._texts = CaptionTexts(
            self.tokenizer, masking, self.max_seq_len, prompt, interleaved=interleaved
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL.{MAX_SEQ_LEN, X2VLM.PROMPT}."""
        loader, arguments = cfg.DATALOADER, super().from_config(cfg, stage)
        return {
            **arguments,
            "masking": build_masking(cfg, arguments["tokenizer"]),
            "prompt": cfg.MODEL.get("X2VLM", {}).get("PROMPT", ""),
            "interleaved": loader.WORD_MASKING.INSERT,
            "captions": loader.SEQ_PER_SAMPLE,
            "image_key": loader.TASK.IMAGE_KEY,
            "text_key": loader.TASK.TEXT_KEY,
            "index_key": loader.TASK.INDEX_KEY,
            "split": loader[f"{stage.upper()}_SPLIT"],
        }

    # -- records ------------------------------------------------------------------------------

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        records = super().load_raw_data(cfg)
        if self.stage == "train" and self.captions == 1:
            return records
        pictures: dict[str, dict[str, Any]] = {}
        kept = []
        for record in records:
            if "error" not in record:
                first = pictures.setdefault(record["index"], record)
                if first is not record:
                    first["texts"] += record["texts"]
                    continue
            kept.append(record)
        return kept

    def entries_of(self, content: dict[str, Any], file: TaskFile) -> list[tuple[str, dict]]:
        if "images" not in content:
            return super().entries_of(content, file)
        keys = (self.image_key, self.text_key, self.index_key)
        return caption_entries(file.path, self.split, keys)

    def records_of(self, entry: dict[str, Any], file: TaskFile) -> Iterable[dict[str, Any]]:
        visual = entry[self.image_key]
        index = entry.get(self.index_key)
        if index is None:
            index = _number_of(visual)
        if not isinstance(index, str | int):
            raise ValueError(f"'{self.index_key}' is a {type(index).__name__}, no number or text")
        common = {"visual": visual, "index": str(index)}
        if self.stage != "train":
            return [{**common, "texts": [], "record_id": str(index)}]
        texts = entry[self.text_key]
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts:
            raise ValueError(f"'{self.text_key}' holds no caption")
        if self.captions > 1:
            return [{**common, "texts": list(texts)}]
        return [{**common, "texts": [text]} for text in texts]

    def clean(self, text: str) -> str:
        """The prompt and the caption as it is written."""
        if not isinstance(text, str) or not text.strip():
            raise UserError(f"the caption {text!r} holds no word")
        return f"{self._texts.prompt} {text.strip()}".strip()

    # -- samples ------------------------------------------------------------------------------

    def ids_of(self, record: dict[str, Any]) -> str:
        return record["index"]

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        sample = self.seen(record)
        if self.stage != "train":
            return sample
        if self.captions == 1:
            return {**sample, **self.caption(record["ids"][0])}
        chosen = choose_captions(len(record["ids"]), self.captions)
        captions = [self.caption(record["ids"][number]) for number in chosen]
        rows = {key: [caption[key] for caption in captions] for key in captions[0]}
        return {**sample, kfg.SEQ_PER_SAMPLE: self.captions, **rows}

    def caption(self, ids: list[int]) -> dict[str, np.ndarray]:
        """A caption with masks, without padding: three arrays (T,) int64.

        Args:
            ids: ``[CLS] prompt words [SEP]``.
        """
        made = self._texts.sequence_of(self.tokenizer.convert_ids_to_tokens(list(ids)))
        told = made.weights > 0
        length = len(ids) + (int(told.sum()) if self.interleaved else 0)
        targets = np.full(length, -1, dtype=np.int64)
        targets[made.masked_pos[told]] = made.masked_ids[told]
        return {
            kfg.U_TOKENS_IDS: made.tokens_ids[:length],
            kfg.U_POSITIONS: made.position_ids[:length],
            kfg.U_TARGET_IDS: targets,
        }


def _number_of(name: Any) -> str:
    """The last number in the name of a file, without zeros in front, or else the name."""
    stem = os.path.splitext(os.path.basename(str(name)))[0]
    found = re.findall(r"\d+", stem)
    return str(int(found[-1])) if found else stem
