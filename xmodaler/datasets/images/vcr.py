"""A mapper of visual commonsense reasoning."""

import logging
import os
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.tokenization import build_tokenizer
from xmodaler.utils.errors import UserError

from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..features import RegionSet
from ..json_lines import read_json_lines
from ..visual_source import MIRRORED, RegionSource, VisualSource, build_source, merged_mean
from .mirroring import MirrorDraw, WordSwap
from .understanding import UnderstandingDataset, as_ids
from .vcr_text import ChoiceTexts, object_names, person_numbers, sentence

_logger = logging.getLogger(__name__)

MAX_LENGTHS = {"VCR_Q-A": 38, "VCR_QA-R": 66}
"""Greatest lengths of a question with an answer, and of these with a rationale."""

CHOICES = 4
_GROUND_TRUTH = "_gt"


@DATASETS_REGISTRY.register()
class VCRDataset(ChoiceTexts, UnderstandingDataset):
    """Questions with four answers, and answered questions with four rationales (Zellers, 2019).

    A sample holds IDS, the visual keys of its picture, lists of one text per choice
    (U_TOKENS_IDS ``[CLS] question [SEP] answer [SEP]`` with U_TOKENS_TYPE 1 from the answer on,
    or ``[CLS] question [SEP] answer [SEP] rationale [SEP]`` with 1 from the rationale on),
    U_TARGET_IDS (1,) and SEQ_PER_SAMPLE, their number. Where the right
    answer is not known (test), U_TARGET_IDS is missing and the rationales come with each answer:
    16 texts, those of the first answer first. Otherwise rationales come with the right answer.

    Persons get neutral names in turn over the whole file, other objects are called by their class.
    Regions are those detected and those of the annotated boxes; both, with probability
    ``mirror_prob``, of the mirrored picture in training.

    Args:
        stage: ``"train"``, ``"val"`` or ``"test"``.
        task_name: ``"VCR_Q-A"`` or ``"VCR_QA-R"``.
        anno_folder: Folder of ``<stage>.jsonl``.
        feats_folder: Folder or packed file of detected regions by the picture's metadata path
            without ``.json``; ``_gt`` behind its name gives those of the annotated boxes.
        max_feat_num: Most rows of an image.
        max_seq_len: Greatest length of a text; not positive for 38 and 66, with which models were
            released.
        seq_per_img: Choices, 4.
        use_global_v: Put the mean of the regions in front of them.
        tokenizer: Cuts the texts.
        source: Gives the visual keys in place of ``feats_folder``.
        mirror_prob: Probability of a mirrored picture, if there are any.
        mirror_text: Let "left" and "right" change places in the texts of mirrored pictures.
        anno_file: In place of ``<anno_folder>/<stage>.jsonl``.
        names_per_record: Begin the turn of names anew for every record.
    """

    noun: ClassVar[str] = "annotation"
    id_key: ClassVar[str] = "annot_id"

    @configurable
    def __init__(
        self,
        stage: str,
        task_name: str,
        anno_folder: str,
        feats_folder: str,
        max_feat_num: int,
        max_seq_len: int,
        seq_per_img: int,
        use_global_v: bool,
        tokenizer: Any,
        source: VisualSource | None = None,
        mirror_prob: float = 0.5,
        mirror_text: bool = False,
        anno_file: str = "",
        names_per_record: bool = False,
    ) -> None:
        if task_name not in MAX_LENGTHS:
            raise UserError(
                f"VCRDataset has no task '{task_name}'; the stage must be like 'train;VCR_Q-A' or "
                "'train;VCR_QA-R'"
            )
        if source is None:
            source = RegionSource(feats_folder, max_feat_num, use_global_v)
        length = max_seq_len if max_seq_len > 0 else MAX_LENGTHS[task_name]
        UnderstandingDataset.__init__(self, stage, source, tokenizer, length, anno_folder)
        self.task_name = task_name
        self.seq_per_img = seq_per_img
        self.draw_mirror = MirrorDraw(source, mirror_prob if stage == "train" else 0.0)
        self.mirror_text = mirror_text
        self.names_per_record = names_per_record
        self.anno_file = anno_file or os.path.join(anno_folder, f"{stage}.jsonl")
        self.swap = WordSwap(tokenizer)
        self._ground_truth: bool | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train;VCR_Q-A") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL; ``stage`` is ``"<stage>;<task>"``."""
        stage, _, task = stage.partition(";")
        loader = cfg.DATALOADER
        return {
            "stage": stage,
            "task_name": task or "VCR_Q-A",
            "anno_folder": loader.ANNO_FOLDER,
            "feats_folder": loader.FEATS_FOLDER,
            "max_feat_num": loader.MAX_FEAT_NUM,
            "max_seq_len": loader.VCR_MAX_SEQ_LEN,
            "seq_per_img": loader.SEQ_PER_SAMPLE,
            "use_global_v": loader.USE_GLOBAL_V,
            "tokenizer": build_tokenizer(cfg),
            "source": build_source(cfg, stage),
            "mirror_prob": loader.MIRROR_PROB,
            "mirror_text": loader.MIRROR_TEXT,
            "anno_file": loader[f"{stage.upper()}_ANNFILE"],
            "names_per_record": loader.VCR_NAMES_PER_RECORD,
        }

    @property
    def cache_name(self) -> str:  # type: ignore[override]
        return self.task_name

    def open_files(self, cfg: CfgNode) -> list[str]:
        return [self.anno_file]

    def cache_parts(self) -> list[str]:
        return [*super().cache_parts(), str(self.names_per_record)]

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """Records ``{annot_id, image_id, file_name, question, answers, rationales, ...}``.

        Texts are strings in which objects have names; labels are there where the file has them.
        """
        lines, problems = read_json_lines(self.anno_file)
        persons = person_numbers()
        records = []
        for where, line in lines:
            turn = person_numbers() if self.names_per_record else persons
            records.append(_raw_record(where, line, turn))
        return records + self.bad_lines(problems)

    def tokenize(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Records with ``tokens``, a text with its types per choice, and ``label``."""
        load = self.load_raw_data_Q2A if self.task_name == "VCR_Q-A" else self.load_raw_data_QA2R
        made = []
        for record in records:
            if "error" not in record:
                try:
                    record = load(record)
                except ValueError as error:
                    kept = ("annot_id", "image_id", "file_name")
                    record = {**{key: record[key] for key in kept}, "error": str(error)}
            made.append(record)
        return made

    def load_raw_data_Q2A(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record of the task Q -> A."""
        rows = self.answer_rows(record["question"], record["answers"])
        return self._tokenised(record, rows, record.get("answer_label"))

    def load_raw_data_QA2R(self, record: dict[str, Any]) -> dict[str, Any]:
        """A record of the task QA -> R.

        Raises:
            ValueError: It has no rationales.
        """
        if not record.get("rationales"):
            raise ValueError("has no rationale_choices")
        answers, known = record["answers"], record.get("answer_label")
        given = answers if known is None else [answers[known]]
        rows = self.rationale_rows(record["question"], given, record["rationales"])
        label = None if known is None else record.get("rationale_label")
        return self._tokenised(record, rows, label)

    def saw(self, *parts: list[int]) -> None:
        """Counts a row if asked to."""
        if self.counts is not None:
            ids = [piece for part in parts for piece in part]
            self.counts.add(ids, self.tokenizer.unk_token_id, special=3)

    @staticmethod
    def _tokenised(
        record: dict[str, Any], rows: list[list[list[int]]], label: int | None
    ) -> dict[str, Any]:
        kept = {key: record[key] for key in ("annot_id", "image_id", "file_name")}
        return {**kept, "tokens": rows, **({} if label is None else {"label": label})}

    def ids_of(self, record: dict[str, Any]) -> Any:
        number = record["annot_id"].rpartition("-")[2]
        return str(int(number)) if number.isdecimal() else record["annot_id"]

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        mirrored = self.draw_mirror()
        visual = self.visual(record, mirrored)
        rows = record["tokens"]
        if mirrored and self.mirror_text:
            rows = [[self._mirrored(pieces), types] for pieces, types in rows]
        sample = {
            kfg.SEQ_PER_SAMPLE: len(rows),
            **visual,
            kfg.U_TOKENS_IDS: [as_ids(pieces) for pieces, _ in rows],
            kfg.U_TOKENS_TYPE: [as_ids(types) for _, types in rows],
        }
        if "label" in record:
            sample[kfg.U_TARGET_IDS] = np.array([record["label"]], dtype=np.int64)
        elif self.stage != "test":
            raise SampleError(self.name_of(record), "has no label")
        return sample

    def _mirrored(self, pieces: list[int]) -> list[int]:
        swapped = self.swap(pieces)
        # The types would no longer fit a text of another length.
        return swapped if len(swapped) == len(pieces) else pieces

    def visual(self, record: dict[str, Any], mirrored: bool = False) -> dict[str, Any]:
        """The visual keys: detected regions, then those of the annotated boxes."""
        source = self.source
        if not isinstance(source, RegionSource):
            return source.sample(record, mirror=mirrored)
        if self._ground_truth is None:
            self._ground_truth = source.has(_GROUND_TRUTH)
            if not self._ground_truth:
                _logger.warning("no features of annotated boxes at '%s_gt'", source.feats_folder)
        if not self._ground_truth:
            return source.sample(record, mirror=mirrored)
        suffix = MIRRORED if mirrored else ""
        return self._merged(record, source, suffix)

    def _merged(self, record: dict[str, Any], source: RegionSource, suffix: str) -> dict[str, Any]:
        limit, mean_in_front = source.max_feat_num, source.use_global_v
        most = limit if limit > 0 else -1
        kept = limit - 1 if limit > 0 else -1
        annotated = source.regions(
            record, suffix=_GROUND_TRUTH + suffix, most=kept if mean_in_front else most
        )
        detected = source.regions(record, suffix=suffix, most=kept if mean_in_front else most)
        mean = merged_mean(detected, annotated) if mean_in_front else None
        room = limit - len(annotated) - mean_in_front if limit > 0 else len(detected)
        return _joined_regions(detected, annotated, max(0, room)).sample(mean_in_front, mean)


def _joined_regions(first: RegionSet, second: RegionSet, room: int) -> RegionSet:
    """``room`` regions of the first set, then the second set."""
    features = np.concatenate([first.features[:room], second.features])
    if first.locations is None or second.locations is None:
        return RegionSet(features)
    return RegionSet(features, np.concatenate([first.locations[:room], second.locations]))


def _raw_record(where: str, line: dict[str, Any], persons: Any) -> dict[str, Any]:
    annotation = str(line.get("annot_id", where))
    objects = line.get("objects")
    if not isinstance(objects, list) or not all(isinstance(name, str) for name in objects):
        return {"annot_id": annotation, "error": f"{where}: 'objects' is no list of classes"}
    # Also for a bad record, so that the names of the others do not depend on it.
    names = object_names(objects, persons)
    try:
        return {"annot_id": annotation, **_texts(line, names)}
    except (KeyError, TypeError, ValueError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        return {"annot_id": annotation, "error": f"{where}: {reason}"}


def _texts(line: dict[str, Any], names: list[str]) -> dict[str, Any]:
    record = {
        "image_id": os.path.splitext(line["metadata_fn"])[0],
        "file_name": line.get("img_fn", ""),
        "question": sentence(line["question"], names),
    }
    for key, choices in (("answers", "answer_choices"), ("rationales", "rationale_choices")):
        if key == "rationales" and choices not in line:
            continue
        if not isinstance(line[choices], list) or len(line[choices]) != CHOICES:
            raise ValueError(f"'{choices}' is no list of {CHOICES} texts")
        record[key] = [sentence(choice, names) for choice in line[choices]]
    for key in ("answer_label", "rationale_label"):
        label = line.get(key)
        if label is None:
            continue
        if isinstance(label, bool) or not isinstance(label, int) or not 0 <= label < CHOICES:
            raise ValueError(f"'{key}' is {label!r}, not one of 0 to {CHOICES - 1}")
        record[key] = label
    return record
