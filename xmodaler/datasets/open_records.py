"""Records of understanding and pre-training from open formats.

A mapper asks for them where DATALOADER.{TRAIN,VAL,TEST}_ANNFILE is set. Records hold plain JSON
values; one with the key ``error`` stands for something unreadable, and is skipped and counted
when it is met. ``file_name`` is there where the annotations or DATALOADER.IMAGE_LIST and
IMAGE_NAME tell it.
"""

import csv
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from xmodaler.config import CfgNode
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .annotations import Problem, read_captions, read_json
from .answer_files import label2ans_path, read_label2ans, read_targets
from .feature_store import open_feature_store
from .picture_lists import PictureList, PictureNames, read_picture_list
from .tar_shards import index_shards, is_shards
from .vqa_annotations import read_annotations, soft_target

_logger = logging.getLogger(__name__)
_LISTED = 10


def vqa_records(cfg: CfgNode, stage: str) -> list[dict[str, Any]]:
    """Questions in VQA v2's official form.

    ``{STAGE}_ANNFILE`` has ``questions[]`` of ``question_id``, ``image_id`` and ``question`` (and
    optionally ``file_name``); ``{STAGE}_TARGETS`` the official annotations, which are scored here
    by the leave-one-out rule, or targets of tools/build_answers.py. With ``{STAGE}_SPLIT`` the
    questions about pictures of that split of IMAGE_LIST are kept. A test stage needs no targets.

    Returns:
        ``{question_id, image_id, question, where}``, with ``file_name``, and ``labels`` and
        ``scores`` where there are targets.

    Raises:
        UserError: A file is missing, of another form, or of another answer vocabulary.
    """
    questions, problems = asked_questions(cfg, stage)
    targets_file = cfg.DATALOADER[f"{stage.upper()}_TARGETS"]
    if not targets_file and stage != "test":
        raise UserError(
            f"DATALOADER.{stage.upper()}_TARGETS is empty; give the official annotations of the "
            "questions, or the targets that tools/build_answers.py makes of them"
        )
    if targets_file:
        answers = read_label2ans(label2ans_path(cfg))
        targets, unusable = _read_targets(targets_file, answers)
        # Their questions become bad records, so these themselves are only told.
        _report(unusable, targets_file)
        _join(questions, targets, targets_file)
    return questions + [{"question_id": p.where, "error": p.reason} for p in problems]


def asked_questions(
    cfg: CfgNode, stage: str, annfile: str = ""
) -> tuple[list[dict[str, Any]], list[Problem]]:
    """The questions of a file in VQA v2's official form, of the split that the config names.

    Args:
        cfg: The config.
        stage: Whose files and split.
        annfile: A file in place of ``{STAGE}_ANNFILE``.
    """
    own, split = _stage_files(cfg, stage)
    annfile = annfile or own
    pictures = _picture_list(cfg, split)
    names = PictureNames(pictures, cfg.DATALOADER.IMAGE_NAME)
    questions, problems = _read_questions(annfile, names)
    if split:
        questions = _of_split(questions, pictures.splits, split, annfile)
    return questions, problems


def _stage_files(cfg: CfgNode, stage: str) -> tuple[str, str]:
    loader = cfg.DATALOADER
    return loader[f"{stage.upper()}_ANNFILE"], loader[f"{stage.upper()}_SPLIT"]


def _picture_list(cfg: CfgNode, split: str) -> PictureList | None:
    if cfg.DATALOADER.IMAGE_LIST:
        return read_picture_list(cfg.DATALOADER.IMAGE_LIST)
    if split:
        raise UserError(
            f"a split '{split}' of questions needs DATALOADER.IMAGE_LIST, which says the split of "
            "every picture"
        )
    return None


def _read_questions(path: str, names: PictureNames) -> tuple[list[dict[str, Any]], list[Problem]]:
    content = read_json(path)
    entries = content.get("questions") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(
            f"'{path}' is no questions file: an object with the list 'questions' is needed, each "
            "with 'question_id', 'image_id' and 'question'"
        )
    questions: dict[str, dict[str, Any]] = {}
    problems = []
    for k, entry in enumerate(entries):
        where = f"{os.path.basename(path)} questions[{k}]"
        reason = _question_fault(entry)
        key = "" if reason else str(entry["question_id"])
        if key in questions:
            reason = f"the question {key} is already {questions[key]['where']}"
        if reason:
            problems.append(Problem(where, reason, where))
            continue
        image_id = str(entry["image_id"])
        questions[key] = {
            "question_id": entry["question_id"],
            "image_id": image_id,
            "file_name": str(entry.get("file_name") or entry.get("image") or names(image_id)),
            "question": entry["question"],
            "where": where,
        }
    return list(questions.values()), problems


def _question_fault(entry: Any) -> str:
    if not isinstance(entry, dict):
        return "not an object"
    for key in ("question_id", "image_id"):
        if isinstance(entry.get(key), bool) or not isinstance(entry.get(key), str | int):
            return f"no '{key}' that is an integer or a string"
    question = entry.get("question")
    return "" if isinstance(question, str) and question.strip() else "the question is empty"


def _of_split(
    records: list[dict[str, Any]], splits: Mapping[str, str], split: str, path: str
) -> list[dict[str, Any]]:
    kept = [record for record in records if splits.get(record["image_id"]) == split]
    if not kept:
        known = ", ".join(sorted(set(splits.values()))) or "(none)"
        raise UserError(
            f"'{path}' has no question about a picture of the split '{split}'; the splits of the "
            f"list of pictures: {known}"
        )
    return kept


def _read_targets(path: str, answers: Sequence[str]) -> tuple[list[dict[str, Any]], list[Problem]]:
    """Targets as they are stored, or made of official annotations."""
    if path.endswith(".json"):
        content = read_json(path)
        if isinstance(content, dict) and "annotations" in content:
            questions, problems = read_annotations(path)
            ans2label = {answer: label for label, answer in enumerate(answers)}
            return [soft_target(question, ans2label) for question in questions], problems
    targets, problems = read_targets(path, answers)
    lists = [
        {**target, "labels": target["labels"].tolist(), "scores": target["scores"].tolist()}
        for target in targets
    ]
    return lists, problems


def _join(questions: list[dict[str, Any]], targets: list[dict[str, Any]], path: str) -> None:
    """Give questions their labels; one without answers becomes a bad record."""
    by_id = {str(target["question_id"]): target for target in targets}
    outside = 0
    for question in questions:
        target = by_id.get(str(question["question_id"]))
        if target is None:
            question["error"] = f"has no answers in '{path}'"
            continue
        question["labels"], question["scores"] = target["labels"], target["scores"]
        outside += not target["labels"]
    if all("error" in question for question in questions):
        first = next(iter(by_id), "(none)")
        raise UserError(
            f"'{path}' has answers to none of the {len(questions)} questions, whose ids are like "
            f"{questions[0]['question_id']} while its own are like {first}"
        )
    if outside:
        _logger.warning(
            "%d of %d questions of '%s' have no answer of the vocabulary: nothing is right for "
            "them", outside, len(questions), path,
        )  # fmt: skip


def retrieval_records(cfg: CfgNode, stage: str) -> list[dict[str, Any]]:
    """Pictures and their captions from COCO's or Karpathy's JSON, or JSON lines.

    Returns:
        ``{image_id, file_name, captions, where}``.

    Raises:
        UserError: The file is unusable or has no picture of ``{STAGE}_SPLIT``.
    """
    annfile, split = _stage_files(cfg, stage)
    names = PictureNames(_picture_list(cfg, ""), cfg.DATALOADER.IMAGE_NAME)
    images, problems = read_captions(annfile, split)
    _report([problem for problem in problems if not problem.record], annfile)
    records = []
    for image in images:
        record: dict[str, Any] = {
            "image_id": image.image_id,
            "file_name": image.file_name or names(image.image_id),
            "captions": image.captions,
            "where": image.where,
        }
        if not image.captions:
            record["error"] = "no caption"
        records.append(record)
    return records + _errors(problems)


def caption_records(cfg: CfgNode, stage: str) -> list[dict[str, Any]]:
    """Pictures with one caption each, for pre-training.

    ``{STAGE}_ANNFILE`` is

    * a ``.tsv`` of Conceptual Captions, ``caption <tab> address``: the number of a line, from 1,
      is the image id, its file is DATALOADER.IMAGE_NAME ('{}.jpg' where that is empty); rows
      without a picture (addresses die) are passed over;
    * tar shards, a folder of them, a glob or a range (see :mod:`.tar_shards`);
    * whatever :func:`.annotations.read_captions` reads; a picture with several captions gives a
      record for each.

    Returns:
        ``{image_id, caption, where}``, with ``file_name`` or the place in a shard.

    Raises:
        UserError: Nothing there can be used.
    """
    annfile, _ = _stage_files(cfg, stage)
    if is_shards(expand_path(annfile)):
        records, problems = index_shards(annfile)
        _logger.info("%s: %d pictures in shards", annfile, len(records))
        return records + _errors(problems)
    if annfile.endswith(".tsv"):
        return _table_records(cfg, annfile)
    records = []
    for record in retrieval_records(cfg, stage):
        captions = record.pop("captions", [])
        records.extend({**record, "caption": caption} for caption in captions)
        if not captions:
            records.append(record)
    return records


def _table_records(cfg: CfgNode, path: str) -> list[dict[str, Any]]:
    names = PictureNames(_picture_list(cfg, ""), cfg.DATALOADER.IMAGE_NAME or "{}.jpg")
    rows = read_table(path)
    known = _known_pictures(cfg)
    records, absent = [], 0
    for number, caption in rows:
        image_id = str(number)
        file_name = names(image_id)
        if known is not None and image_id not in known and file_name not in known:
            absent += 1
            continue
        where = f"{os.path.basename(path)} line {number}"
        record = {
            "image_id": image_id, "file_name": file_name, "caption": caption, "where": where
        }  # fmt: skip
        if not caption.strip():
            record["error"] = "no caption"
        records.append(record)
    if not records:
        folder = cfg.DATALOADER.FEATS_FOLDER or cfg.DATALOADER.IMAGE_FOLDER
        raise UserError(
            f"none of the {len(rows)} rows of '{path}' has a picture in '{folder}'; the number of "
            "a row, from 1, is the name (DATALOADER.IMAGE_NAME, '{}.jpg' by default)"
        )
    if absent:
        _logger.warning("%d of %d rows of '%s' have no picture", absent, len(rows), path)
    return records


def read_table(path: str) -> list[tuple[int, str]]:
    """The rows of a table ``caption <tab> address``: their numbers, from 1, and captions.

    Raises:
        UserError: The file cannot be read.
    """
    path = expand_path(path)
    try:
        with open(path, encoding="utf-8", newline="") as file:
            lines = csv.reader(file, delimiter="\t")
            return [(number, row[0] if row else "") for number, row in enumerate(lines, start=1)]
    except OSError as error:
        raise UserError(f"annotation file '{path}' cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"annotation file '{path}' is no table of captions: {error}") from None


def _known_pictures(cfg: CfgNode) -> Collection[str] | None:
    """Ids of stored features or names of pictures; None where names lie in folders below."""
    loader = cfg.DATALOADER
    if loader.FEATS_FOLDER:
        return set(open_feature_store(loader.FEATS_FOLDER).ids)
    folder = expand_path(loader.IMAGE_FOLDER)
    if os.sep in loader.IMAGE_NAME or not os.path.isdir(folder):
        return None
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries}


def _errors(problems: Sequence[Problem]) -> list[dict[str, Any]]:
    return [{"image_id": p.where, "error": p.reason} for p in problems if p.record]


def _report(problems: Sequence[Problem], path: str) -> None:
    for problem in problems[:_LISTED]:
        _logger.warning("%s", problem)
    if len(problems) > _LISTED:
        _logger.warning("%s has %d more problems", path, len(problems) - _LISTED)
