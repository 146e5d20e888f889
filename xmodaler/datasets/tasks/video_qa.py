"""Mapper of questions about videos with a list of answers."""

import os
import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..answer_files import read_label2ans
from ..build import DATASETS_REGISTRY
from .records import JsonRecords
from .task_files import TaskFile

__all__ = ["JsonVideoQADataset"]

OUTSIDE = -1
"""Label of an answer that is not in the list: nothing is learned from it, and nothing is right."""
_NUMBERED = re.compile(r"video_?(\d+)")


@DATASETS_REGISTRY.register()
class JsonVideoQADataset(JsonRecords):
    """Questions with one answer out of a list (MSRVTT-QA and MSVD-QA, Xu et al., MM 2017).

    A sample has IMAGES (F, 3, size, size), U_TOKENS_IDS and, where the file has answers,
    U_TARGET_IDS (), the label of the answer, -1 for one outside the list.

    Files hold records ``video_id, question, answer`` and optionally ``question_id``; the video is
    ``<video_id>`` with any ending, or ``video_<n>`` where ids are ``video<n>``.

    Args:
        answers: The answers by label.
        labels: How many of them the model knows.
        **records: As for :class:`~.records.JsonRecords`.
    """

    noun = "question"
    questions = True

    @configurable
    def __init__(self, *, answers: list[str], labels: int, **records: Any) -> None:
        super().__init__(**records)
        self.labels = {answer: label for label, answer in enumerate(answers[:labels])}
        self._names: dict[str, str] = {}

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL.

        Raises:
            UserError: The list of answers is missing, or shorter than what the model labels.
        """
        labels, path = cfg.MODEL.X2VLM.NUM_LABELS, cfg.DATALOADER.ANSWERS
        if not path:
            raise UserError("DATALOADER.ANSWERS is ''; it names the answers, a list or ans2label")
        answers = read_label2ans(path)
        if len(answers) < labels:
            raise UserError(
                f"'{path}' has {len(answers)} answers, but MODEL.X2VLM.NUM_LABELS is {labels}; the "
                "model cannot have more"
            )
        return {**super().from_config(cfg, stage), "answers": answers, "labels": labels}

    def records_of(self, entry: dict[str, Any], file: TaskFile) -> Iterable[dict[str, Any]]:
        video = entry["video_id"]
        if isinstance(video, bool) or not isinstance(video, str | int):
            raise ValueError(f"'video_id' is a {type(video).__name__}")
        record = {"visual": self._name(str(video)), "texts": [entry["question"]]}
        if "question_id" in entry:
            record["record_id"] = str(entry["question_id"])
        if "answer" in entry:
            if not isinstance(entry["answer"], str):
                raise ValueError("the answer is not text")
            record["label"] = self.labels.get(entry["answer"], OUTSIDE)
        elif self.stage == "train":
            raise KeyError("answer")
        yield record

    def _name(self, video: str) -> str:
        """What the file of a video is called."""
        if video not in self._names:
            numbered = _NUMBERED.fullmatch(video)
            choices = [video, *([f"video_{numbered[1]}"] if numbered else [])]
            paths = {name: os.path.join(self.source.folder, name) for name in choices}
            self._names[video] = next(
                (n for n, p in paths.items() if os.path.exists(p) or os.path.exists(f"{p}.json")),
                video,
            )
        return self._names[video]

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        sample = super().sample_of(record)
        if "label" in record:
            sample[kfg.U_TARGET_IDS] = np.int64(record["label"])
        return sample
