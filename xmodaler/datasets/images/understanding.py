"""What the mappers of understanding and pre-training share."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, kfg
from xmodaler.functional import dict_as_tensor

from ..annotations import Problem
from ..bad_samples import SampleError
from ..features import expected_width
from ..text_cache import cached_records
from ..visual_source import RegionSource, VisualSource


@dataclass
class TextCounts:
    """What was seen of texts while they were tokenised.

    Attributes:
        lengths: How many texts have so many ids, special tokens included, before any is cut.
        known: How many ids are word pieces of the vocabulary (True) or the unknown one (False).
    """

    lengths: Counter = field(default_factory=Counter)
    known: Counter = field(default_factory=Counter)

    def add(self, ids: Sequence[int], unknown: int, special: int = 2) -> None:
        """Count one text.

        Args:
            ids: Its word pieces.
            unknown: Id of the unknown word.
            special: Special tokens that are put to it.
        """
        self.lengths[len(ids) + special] += 1
        strange = list(ids).count(unknown)
        self.known.update({True: len(ids) - strange, False: strange})


class UnderstandingDataset:
    """Records of texts and one image each, as word pieces and what a visual source gives.

    A subclass reads plain records (:meth:`load_raw_data`), turns their texts into ids
    (:meth:`tokenize`) and makes the keys of a sample (:meth:`sample_of`). A record with the key
    ``error`` is a bad one: it is skipped and counted when it is met.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        source: Gives the visual keys.
        tokenizer: Cuts the texts.
        max_seq_len: Greatest length of a text with its special tokens.
        anno_folder: Folder of the annotations; tokenised ones are kept in its ``cache``.
    """

    noun: ClassVar[str] = "image"
    id_key: ClassVar[str] = "image_id"
    cache_name: ClassVar[str] = ""

    def __init__(
        self,
        stage: str,
        source: VisualSource,
        tokenizer: Any,
        max_seq_len: int,
        anno_folder: str = "",
    ) -> None:
        self.stage = stage
        self.source = source
        self.tokenizer = tokenizer
        self.max_seq_len = max_seq_len
        self.anno_folder = anno_folder
        # Set by who wants to know: counting costs a look at every id.
        self.counts: TextCounts | None = None

    def load_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """The records: ids and word pieces; nothing heavy.

        Raises:
            UserError: A file or folder that the config names does not exist or is unusable.
        """
        self.prepare(cfg)
        if not self.cache_name or self.counts is not None:
            return self.tokenize(self.load_raw_data(cfg))
        files = self.open_files(cfg) or self.annotation_files()
        folder = self.anno_folder or os.path.dirname(files[0])
        return cached_records(
            os.path.join(folder, "cache"),
            f"{self.cache_name}_{self.stage}_{self.max_seq_len}",
            files,
            [*self.cache_parts(), *self._open_settings(cfg)],
            lambda: self.tokenize(self.load_raw_data(cfg)),
        )

    def annotation_files(self) -> list[str]:
        """The files of the released layout that the records are made of."""
        return []

    def _open_settings(self, cfg: CfgNode) -> list[str]:
        return [cfg.DATALOADER[key] for key in (f"{self.stage.upper()}_SPLIT", "IMAGE_NAME")]

    def open_files(self, cfg: CfgNode) -> list[str]:
        """The files of an open format that the records are made of; none if it is not used."""
        loader, stage = cfg.DATALOADER, self.stage.upper()
        if not loader[f"{stage}_ANNFILE"]:
            return []
        named = (f"{stage}_ANNFILE", f"{stage}_TARGETS", "IMAGE_LIST")
        return [loader[key] for key in named if loader[key]]

    def cache_parts(self) -> list[str]:
        """What decides the records beside files and settings of open formats."""
        return [type(self).__name__, str(self.max_seq_len), self.tokenizer.fingerprint()]

    def prepare(self, cfg: CfgNode) -> None:
        """Take from the config what its model expects, and fail now if data are missing."""
        if isinstance(self.source, RegionSource) and self.source.width is None:
            self.source.width = expected_width(cfg)
        self.source.check()

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """Records as people wrote them, of plain JSON values."""
        raise NotImplementedError

    def tokenize(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The same records with word pieces in place of texts."""
        return records

    def pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """``[CLS] text [SEP]`` of each text, the text cut to what ``max_seq_len`` leaves."""
        single, room = self.tokenizer.add_special_tokens_single_sentence, self.max_seq_len - 2
        encoded = self.encode([text.strip() for text in texts])
        return [single(ids[:room]) for ids in encoded]

    def encode(self, texts: Sequence[str], special: int = 2) -> list[list[int]]:
        """Word pieces of texts, without special tokens.

        Args:
            texts: The texts.
            special: Special tokens that will be put to each, for the count of lengths.
        """
        encoded = self.tokenizer.encode_batch(texts)
        if self.counts is not None:
            for ids in encoded:
                self.counts.add(ids, self.tokenizer.unk_token_id, special)
        return encoded

    def count_texts(self, records: Sequence[dict[str, Any]]) -> TextCounts:
        """What was counted while the records were loaded (see ``counts``)."""
        return self.counts or TextCounts()

    def bad_lines(self, problems: Sequence[Problem]) -> list[dict[str, Any]]:
        """Records that stand for what could not be read."""
        return [{self.id_key: p.where, "error": p.reason} for p in problems]

    def name_of(self, record: dict[str, Any]) -> str:
        """What a record is called in messages."""
        return f"{self.noun} '{record.get(self.id_key, '?')}'"

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        """All keys of a sample but IDS.

        Raises:
            SampleError: The record is unusable.
        """
        raise NotImplementedError

    def ids_of(self, record: dict[str, Any]) -> Any:
        """IDS of a sample."""
        return str(record[self.id_key])

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """One sample of a record.

        Raises:
            SampleError: The record is unusable; says which it is.
        """
        name = self.name_of(dataset_dict)
        if "error" in dataset_dict:
            raise SampleError(name, dataset_dict["error"])
        if self.id_key not in dataset_dict:
            raise SampleError(name, f"has no '{self.id_key}'")
        try:
            sample = dict_as_tensor(self.sample_of(dataset_dict))
        except SampleError as error:
            if self.id_key == "image_id":
                raise
            raise SampleError(name, str(error)) from None
        ids = self.ids_of(dataset_dict)
        return sample if ids is None else {kfg.IDS: ids, **sample}


def token_types(pieces: Sequence[int], value: int = 0) -> np.ndarray:
    """(T,) int64 token types, all the same."""
    return np.full(len(pieces), value, dtype=np.int64)


def as_ids(pieces: Sequence[int]) -> np.ndarray:
    """(T,) int64 of a list."""
    return np.asarray(pieces, dtype=np.int64)
