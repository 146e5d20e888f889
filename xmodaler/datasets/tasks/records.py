"""What the mappers of tasks share: records of JSON with texts, and a picture or video each."""

import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional.func_text import mentions_sides, pre_caption, pre_question
from xmodaler.tokenization import build_tokenizer
from xmodaler.utils.errors import UserError

from ..bad_samples import SampleError
from ..images.understanding import UnderstandingDataset
from ..line_shards import index_lines, read_line
from .task_files import TaskFile, is_json_lines, read_task_file, task_files
from .visuals import TaskVisuals

__all__ = ["JsonRecords", "cleaned"]

_logger = logging.getLogger(__name__)
_MANY_UNKNOWN = 0.05


class JsonRecords(UnderstandingDataset):
    """Records of JSON files, as word pieces and pixels.

    A subclass says what a record of its files is (:meth:`records_of`): a dict with

    * ``texts``: strings, which become word pieces (:meth:`tokens`, under ``ids``),
    * ``visual``: the picture or video, see :class:`~.visuals.TaskVisuals`,
    * ``record_id``: IDS of the sample, by default its place in the file,

    and whatever :meth:`sample_of` needs. A record that raises there is a bad one. By default a
    sample has the text in U_TOKENS_IDS and the picture or video in IMAGES.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        source: Gives the pictures.
        tokenizer: Cuts the texts.
        max_seq_len: Most word pieces with the special ones.
        files: File or files of the records, see :func:`~.task_files.task_files`.
        max_words: Words of a text that are kept.
        careful: Do not mirror where a text says left or right.
    """

    noun: ClassVar[str] = "record"
    id_key: ClassVar[str] = "record_id"
    questions: ClassVar[bool] = False
    """Whether texts are cleaned as questions (:func:`pre_question`) and not as captions."""

    @configurable
    def __init__(
        self,
        *,
        stage: str,
        source: TaskVisuals,
        tokenizer: Any,
        max_seq_len: int,
        files: str,
        max_words: int = 30,
        careful: bool = True,
    ) -> None:
        super().__init__(stage, source, tokenizer, max_seq_len)
        self.files = files
        self.max_words = max_words
        self.careful = careful

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL.MAX_SEQ_LEN."""
        loader, node = cfg.DATALOADER, cfg.DATALOADER.TASK
        return {
            "stage": stage,
            "source": TaskVisuals.from_config(cfg, stage),
            "tokenizer": build_tokenizer(cfg),
            "max_seq_len": cfg.MODEL.MAX_SEQ_LEN,
            "files": loader[f"{stage.upper()}_ANNFILE"],
            "max_words": node.MAX_WORDS if stage == "train" else cls.words_of(cfg),
            "careful": loader.REGIONS.CAREFUL_MIRROR,
        }

    @staticmethod
    def words_of(cfg: CfgNode) -> int:
        """Words of a text that are kept in evaluation."""
        node = cfg.DATALOADER.TASK
        return node.TEST_MAX_WORDS or node.MAX_WORDS

    # -- records ------------------------------------------------------------------------------

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """The records of all files, in their order.

        Raises:
            UserError: A file cannot be read, is empty or of another form.
        """
        key = f"DATALOADER.{self.stage.upper()}_ANNFILE"
        return [record for file in task_files(self.files, key) for record in self.read_file(file)]

    def read_file(self, file: TaskFile) -> list[dict[str, Any]]:
        """The records of one file."""
        if self.source is not None and self.source.in_line and is_json_lines(file.path):
            return self._lines_of(file)
        content, problems = read_task_file(file.path)
        if isinstance(content, dict):
            content = self.entries_of(content, file)
        records = [record for where, entry in content for record in self._made(where, entry, file)]
        return records + self.bad_lines(problems)

    def _lines_of(self, file: TaskFile) -> list[dict[str, Any]]:
        """Records of lines that hold pictures, which stay in the file until they are needed."""
        records = []
        for place in index_lines(file.path):
            where = place["image_id"]
            try:
                entry = read_line(place)
            except SampleError as error:
                records.append({"where": where, "record_id": where, "error": error.reason})
                continue
            fields = {id(value): key for key, value in entry.items()}
            for record in self._made(where, entry, file):
                key = fields.get(id(record.get("visual")))
                if key is not None:
                    record["visual"] = {"line": place, "key": key}
                records.append(record)
        return records

    def _made(self, where: str, entry: dict[str, Any], file: TaskFile) -> list[dict[str, Any]]:
        try:
            made = [{"where": where, **record} for record in self.records_of(entry, file)]
        except (UserError, ValueError, KeyError, TypeError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            made = [{"where": where, "error": reason}]
        for record in made:
            record.setdefault("record_id", where)
        return made

    def entries_of(self, content: dict[str, Any], file: TaskFile) -> list[tuple[str, dict]]:
        """Places and entries of a file that holds one object.

        Raises:
            UserError: This task has no such files.
        """
        raise UserError(
            f"'{file.path}' holds one object where {type(self).__name__} needs a list of records, "
            "or one record a line"
        )

    def records_of(self, entry: dict[str, Any], file: TaskFile) -> Iterable[dict[str, Any]]:
        """The records that an entry of a file makes.

        Raises:
            ValueError, KeyError, TypeError, UserError: The entry is unusable; says why.
        """
        raise NotImplementedError

    def name_of(self, record: dict[str, Any]) -> str:
        return str(record.get("where", record.get("record_id", "?")))

    # -- texts --------------------------------------------------------------------------------

    def clean(self, text: str) -> str:
        """A text as it is cut into pieces.

        Raises:
            UserError: Nothing is left of it.
        """
        return cleaned(text, self.max_words, self.questions)

    def tokenize(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The records with ``ids``, the word pieces of each text, in place of ``texts``."""
        texts: list[str] = []
        for record in records:
            try:
                cleaned = [self.clean(text) for text in record.get("texts", ())]
            except UserError as error:
                record.setdefault("error", str(error))
                cleaned = []
            written = record.pop("texts", ())
            if self.careful and not record.get("error"):
                record["sided"] = mentions_sides(written)
            record["ids"] = len(cleaned)
            texts += cleaned
        pieces = iter(self.pieces(texts))
        for record in records:
            record["ids"] = [next(pieces) for _ in range(record["ids"])]
        self._warn_of_unknown(records)
        return records

    def _warn_of_unknown(self, records: list[dict[str, Any]]) -> None:
        unknown, found = self.tokenizer.unk_token_id, Counter()
        for record in records:
            for ids in record["ids"]:
                found[True] += len(ids) - 2
                found[False] += ids.count(unknown)
        if found[False] > _MANY_UNKNOWN * found[True]:
            _logger.warning(
                "%d of the %d word pieces of the %s texts are unknown to the vocabulary "
                "(MODEL.PRETRAINING.MODEL_NAME)",
                found[False],
                found[True],
                self.stage,
            )

    def tokens(self, record: dict[str, Any]) -> list[np.ndarray]:
        """The word pieces (T,) int64 of each text of a record."""
        return [np.asarray(ids, dtype=np.int64) for ids in record["ids"]]

    # -- samples ------------------------------------------------------------------------------

    def may_mirror(self, record: dict[str, Any]) -> bool:
        """Whether the pictures of a record may be mirrored."""
        return not record.get("sided", False)

    def seen(self, record: dict[str, Any]) -> dict[str, Any]:
        """IMAGES of a record."""
        if record.get("visual") is None:
            raise SampleError("it names no picture")
        return self.source.sample(record, mirror=self.may_mirror(record))

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        return {**self.seen(record), kfg.U_TOKENS_IDS: self.tokens(record)[0]}


def cleaned(text: str, words: int, question: bool = False) -> str:
    """A text as it is cut into word pieces.

    Args:
        text: As people wrote it.
        words: How many words are kept.
        question: Clean it by :func:`pre_question` and not by :func:`pre_caption`.

    Raises:
        UserError: Nothing is left of it.
    """
    if not isinstance(text, str):
        raise UserError(f"a {type(text).__name__} stands where a text is due")
    found = (pre_question if question else pre_caption)(text, words)
    if not found.strip():
        raise UserError(f"the text {text!r} holds no word")
    return found
