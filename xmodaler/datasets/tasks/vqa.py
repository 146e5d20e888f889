"""Mapper of questions about pictures whose answers are generated word by word."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional.func_text import mentions_sides
from xmodaler.functional.func_vqa import normalize_answer
from xmodaler.tokenization import build_tokenizer
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from ..answer_files import read_label2ans
from ..build import DATASETS_REGISTRY
from ..open_records import asked_questions
from ..vqa_annotations import read_annotations
from .records import JsonRecords
from .task_files import TaskFile, task_files

__all__ = ["JsonVQADataset", "candidate_answers", "question_name"]

GENOME_WEIGHT = 0.5
"""Of the one answer that Visual Genome gives to a question."""


def question_name(question: Any, language: str = "") -> str:
    """The id of a question, which files of several languages share."""
    return f"{language}/{question}" if language else str(question)


def candidate_answers(cfg: CfgNode) -> tuple[list[list[int]], int, int]:
    """The word pieces of DATALOADER.ANSWERS, and what every answer begins and ends with.

    Raises:
        UserError: The setting is empty, or names no list of answers.
    """
    if not cfg.DATALOADER.ANSWERS:
        raise UserError(
            "DATALOADER.ANSWERS is ''; it names the list of answers that are ranked, a JSON list"
        )
    tokenizer = build_tokenizer(cfg)
    pieces = tokenizer.encode_batch(read_label2ans(cfg.DATALOADER.ANSWERS))
    return pieces, tokenizer.cls_token_id, tokenizer.sep_token_id


@DATASETS_REGISTRY.register()
class JsonVQADataset(JsonRecords):
    """Questions with the answers of people (X²-VLM, Zeng et al. 2023; xGQA, Pfeiffer et al. 2022).

    A sample has IMAGES and U_TOKENS_IDS; in training also the different answers G_TOKENS_IDS,
    beginning with begin of sentence, G_TARGET_IDS, ending with its end, ANSWER_WEIGHTS, the share
    of people who gave each, and ANSWER_COUNTS, how many answers there are.

    Files are one of

    * records ``question_id, question, image, dataset, answer``, the answer a string or a list of
      what each person said; the single ones of ``vg`` weigh 0.5;
    * GQA's ``question_id, sent, img_id, label`` with scores of answers, or xGQA's object from id to
      ``imageId, question, answer``;
    * the official questions of VQA v2, with the annotations in {TRAIN,VAL}_TARGETS (one file for
      each of them, in order).

    What a file is called in the setting (``en=...,de=...``) is given as SPLITS.

    Args:
        targets: Annotations of official questions.
        genome_folder: Where pictures of ``vg`` begin, if not where the others do.
        image_name: Pattern of the files of GQA.
        **records: As for :class:`~.records.JsonRecords`.
    """

    noun = "question"
    questions = True

    @configurable
    def __init__(
        self,
        *,
        targets: str = "",
        genome_folder: str = "",
        image_name: str = "{}.jpg",
        **records: Any,
    ) -> None:
        super().__init__(**records)
        self.targets = targets
        self.genome_folder = os.path.abspath(expand_path(genome_folder)) if genome_folder else ""
        self.image_name = image_name
        self._cfg: CfgNode | None = None
        self._targets: list[TaskFile] = []

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        loader = cfg.DATALOADER
        return {
            **super().from_config(cfg, stage),
            "targets": loader[f"{stage.upper()}_TARGETS"],
            "genome_folder": loader.TASK.GENOME_FOLDER,
            "image_name": loader.IMAGE_NAME or "{}.jpg",
        }

    # -- records ------------------------------------------------------------------------------

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        self._cfg = cfg
        self._targets = task_files(self.targets) if self.targets else []
        return super().load_raw_data(cfg)

    def entries_of(self, content: dict[str, Any], file: TaskFile) -> list[tuple[str, dict]]:
        if "questions" in content:
            return self._official(file)
        name = os.path.basename(file.path)
        if not content or not all(isinstance(entry, dict) for entry in content.values()):
            return super().entries_of(content, file)
        return [(f"{name}[{key}]", {"question_id": key, **entry}) for key, entry in content.items()]

    def _official(self, file: TaskFile) -> list[tuple[str, dict]]:
        """The questions of VQA v2 with what people answered."""
        asked, problems = asked_questions(self._cfg, self.stage, file.path)
        answers: dict[str, list[str]] = {}
        if self._targets:
            said, more = read_annotations(self._targets.pop(0).path)
            answers = {
                str(one.question_id): [normalize_answer(answer) for answer in one.answers]
                for one in said
            }
            problems = [*problems, *more]
        elif self.stage == "train":
            raise UserError(
                f"'{file.path}' has questions without answers; DATALOADER.TRAIN_TARGETS names the "
                "official annotations"
            )
        entries = []
        for question in asked:
            entry = {**question, "image": question["file_name"]}
            if str(question["question_id"]) in answers:
                entry["answer"] = answers[str(question["question_id"])]
            entries.append((question["where"], entry))
        return entries + [(problem.where, {"fault": problem.reason}) for problem in problems]

    def records_of(self, entry: dict[str, Any], file: TaskFile) -> Iterable[dict[str, Any]]:
        if "fault" in entry:
            raise ValueError(entry["fault"])
        if "sent" in entry or "imageId" in entry:
            entry = _of_gqa(entry, self.image_name)
        visual = entry["image"]
        if entry.get("dataset") == "vg" and self.genome_folder and isinstance(visual, str):
            visual = os.path.join(self.genome_folder, visual)
        record = {
            "record_id": question_name(entry["question_id"], file.name),
            "visual": visual,
            "texts": [entry["question"]],
            "language": file.name,
        }
        if self.stage == "train":
            answers = answer_weights(entry["answer"], entry.get("dataset", "vqa"))
            record["weights"] = list(answers.values())
            record["answers"] = list(answers)
        yield record

    def tokenize(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        records = super().tokenize(records)
        answers = [answer for record in records for answer in record.get("answers", ())]
        pieces = iter(self.tokenizer.encode_batch(answers))
        for record in records:
            if "answers" not in record:
                continue
            if self.careful and mentions_sides(record["answers"]):
                record["sided"] = True
            found = [next(pieces) for _ in record.pop("answers")]
            kept = [row for row, ids in enumerate(found) if ids]
            if not kept and "error" not in record:
                record["error"] = "its answers hold no word"
            record["answer_ids"] = [found[row] for row in kept]
            record["weights"] = [record["weights"][row] for row in kept]
        return records

    # -- samples ------------------------------------------------------------------------------

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        sample = super().sample_of(record)
        if self.stage != "train":
            sample[kfg.SPLITS] = record["language"]
            return sample
        begin, end = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        answers = record["answer_ids"]
        sample[kfg.G_TOKENS_IDS] = [np.array([begin, *ids], dtype=np.int64) for ids in answers]
        sample[kfg.G_TARGET_IDS] = [np.array([*ids, end], dtype=np.int64) for ids in answers]
        sample[kfg.ANSWER_WEIGHTS] = [np.float32(weight) for weight in record["weights"]]
        sample[kfg.ANSWER_COUNTS] = np.int64(len(answers))
        return sample


def answer_weights(answer: Any, dataset: str = "vqa") -> dict[str, float]:
    """Different answers and what they weigh.

    Args:
        answer: A string, a list of what each person said, or scores of answers.
        dataset: ``vg`` gives one answer that weighs 0.5.

    Raises:
        ValueError: There is none, or one is no text.
    """
    if isinstance(answer, str):
        answer = [answer]
        weights = {answer[0]: GENOME_WEIGHT if dataset == "vg" else 1.0}
    elif isinstance(answer, Mapping):
        weights = {text: float(score) for text, score in answer.items() if float(score) > 0}
    elif isinstance(answer, list):
        if not all(isinstance(text, str) for text in answer):
            raise ValueError("an answer is not text")
        counts = Counter(answer)
        weights = {text: count / len(answer) for text, count in counts.items()}
    else:
        raise ValueError(f"the answer is a {type(answer).__name__}")
    if not weights:
        raise ValueError("it has no answer")
    return weights


def _of_gqa(entry: Mapping[str, Any], image_name: str) -> dict[str, Any]:
    """An entry of GQA in X-VLM's form: of its training file, or of xGQA's test files."""
    image = entry["img_id"] if "sent" in entry else entry["imageId"]
    found = {
        "question_id": entry["question_id"],
        "question": entry["sent"] if "sent" in entry else entry["question"],
        "image": image_name.format(image),
        "dataset": "gqa",
    }
    answer = entry.get("label", entry.get("answer"))
    return found if answer is None else {**found, "answer": answer}
