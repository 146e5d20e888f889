"""A mapper of visual question answering."""

import logging
import os
from typing import Any, ClassVar

import numpy as np

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.tokenization import build_tokenizer
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from ..annotations import Problem, read_json
from ..answer_files import ANS2LABEL, json_or_pickle, label2ans_path, read_label2ans, read_targets
from ..bad_samples import SampleError
from ..build import DATASETS_REGISTRY
from ..open_records import vqa_records
from ..visual_source import RegionSource, VisualSource, build_source
from .mirroring import MirrorDraw, WordSwap
from .understanding import UnderstandingDataset, as_ids, token_types

_logger = logging.getLogger(__name__)

HELD_OUT = 3000
"""Questions of val2014, the last by id, that are kept for validation."""

_QUESTIONS = "v2_OpenEnded_mscoco_{}_questions.json"
_GENOME = ("VG_questions2.json", "vg_target")


@DATASETS_REGISTRY.register()
class VQADataset(UnderstandingDataset):
    """Questions about pictures, with soft scores of the answers of a vocabulary.

    A sample holds IDS (of the question), the visual keys, U_TOKENS_IDS, U_TOKENS_TYPE and, but
    for test, U_TARGET_IDS (answers,) float32. In training, with probability ``mirror_prob``, the
    picture is mirrored and "left" and "right" change places in question and answers.

    Args:
        stage: ``"train"`` (train2014, val2014 without its last 3000 questions, Visual Genome),
            ``"val"`` (those 3000) or ``"test"`` (test2015).
        anno_folder: Folder of questions and targets.
        ans2label_path: Labels of answers; may be missing.
        label2ans_path: Answers by label.
        feats_folder: Folder or packed file of region features; ``_mirror`` behind its name gives
            those of mirrored pictures.
        max_feat_num: Most rows of an image.
        max_seq_len: Greatest length of a question with its special tokens.
        use_global_v: Put the mean of the regions in front of them.
        tokenizer: Cuts the questions.
        source: Gives the visual keys in place of ``feats_folder``.
        mirror_prob: Probability of a mirrored picture, if there are any.
    """

    noun: ClassVar[str] = "question"
    id_key: ClassVar[str] = "question_id"
    cache_name: ClassVar[str] = "VQA"

    @configurable
    def __init__(
        self,
        stage: str,
        anno_folder: str,
        ans2label_path: str,
        label2ans_path: str,
        feats_folder: str,
        max_feat_num: int,
        max_seq_len: int,
        use_global_v: bool,
        tokenizer: Any,
        source: VisualSource | None = None,
        mirror_prob: float = 0.5,
    ) -> None:
        if source is None:
            source = RegionSource(feats_folder, max_feat_num, use_global_v)
        super().__init__(stage, source, tokenizer, max_seq_len, anno_folder)
        self.ans2label_path = ans2label_path
        self.label2ans_path = label2ans_path
        self.draw_mirror = MirrorDraw(source, mirror_prob if stage == "train" else 0.0)
        self.swap = WordSwap(tokenizer)
        self._answers: list[str] | None = None
        self._sides: list[int] = []

    @classmethod
    def from_config(cls, cfg: CfgNode, stage: str = "train") -> dict[str, Any]:
        """Constructor arguments from DATALOADER and MODEL."""
        loader = cfg.DATALOADER
        folder = loader.FEATS_FOLDER
        if folder and stage == "test" and not loader.TEST_ANNFILE:
            folder += "_test2015"
        return {
            "stage": stage,
            "anno_folder": loader.ANNO_FOLDER,
            "ans2label_path": os.path.join(loader.ANNO_FOLDER, f"{ANS2LABEL}.pkl"),
            "label2ans_path": label2ans_path(cfg),
            "feats_folder": folder,
            "max_feat_num": loader.MAX_FEAT_NUM,
            "max_seq_len": cfg.MODEL.MAX_SEQ_LEN,
            "use_global_v": loader.USE_GLOBAL_V,
            "tokenizer": build_tokenizer(cfg),
            "source": build_source(cfg, stage, feats_folder=folder),
            "mirror_prob": loader.MIRROR_PROB,
        }

    @property
    def answers(self) -> list[str]:
        """The answers by label."""
        if self._answers is None:
            self._answers = read_label2ans(self.label2ans_path)
            if {"left", "right"} <= set(self._answers):
                self._sides = [self._answers.index("left"), self._answers.index("right")]
        return self._answers

    def prepare(self, cfg: CfgNode) -> None:
        super().prepare(cfg)
        if self.stage == "test":
            return
        labels = cfg.MODEL.get("MM_PREDICTOR", {}).get("LABELS_NUM", len(self.answers))
        if labels != len(self.answers):
            raise UserError(
                f"'{self.label2ans_path}' has {len(self.answers)} answers, but "
                f"MODEL.MM_PREDICTOR.LABELS_NUM is {labels}; both must be the same"
            )

    def open_files(self, cfg: CfgNode) -> list[str]:
        files = super().open_files(cfg)
        return [*files, *self._vocabulary()] if files else []

    def annotation_files(self) -> list[str]:
        if self.stage == "test":
            return [self._path(_QUESTIONS.format("test2015"))]
        files = [(_QUESTIONS.format("val2014"), "val_target")]
        if self.stage == "train":
            files.append((_QUESTIONS.format("train2014"), "train_target"))
            if os.path.isfile(self._path(_GENOME[0])):
                files.append(_GENOME)
        paths = [self._path(questions) for questions, _ in files]
        targets = [json_or_pickle(self._path(targets)) for _, targets in files]
        return [*paths, *targets, *self._vocabulary()]

    def _vocabulary(self) -> list[str]:
        try:
            return [json_or_pickle(self.label2ans_path)]
        except UserError:  # a test stage needs none
            return []

    def load_raw_data(self, cfg: CfgNode) -> list[dict[str, Any]]:
        """Records ``{question_id, image_id, question, labels, scores}``, labels not for test."""
        if cfg.DATALOADER[f"{self.stage.upper()}_ANNFILE"]:
            return vqa_records(cfg, self.stage)
        if self.stage == "test":
            questions, problems = self._questions(_QUESTIONS.format("test2015"))
            return questions + self.bad_lines(problems)
        held_out = self._pairs(_QUESTIONS.format("val2014"), "val_target")
        if self.stage == "val":
            return held_out[-HELD_OUT:]
        records = self._pairs(_QUESTIONS.format("train2014"), "train_target")
        records += held_out[:-HELD_OUT]
        if os.path.isfile(self._path(_GENOME[0])):
            records += self._pairs(*_GENOME)
        else:
            _logger.warning("'%s' does not exist: trained without it", self._path(_GENOME[0]))
        return records

    def _path(self, name: str) -> str:
        return expand_path(os.path.join(self.anno_folder, name))

    def _questions(self, name: str) -> tuple[list[dict[str, Any]], list[Problem]]:
        """The questions of a file, by id."""
        content = read_json(self._path(name))
        entries = content.get("questions") if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise UserError(f"'{self._path(name)}' has no list 'questions'")
        questions, problems = [], []
        for k, entry in enumerate(entries):
            if isinstance(entry, dict) and {"question_id", "image_id", "question"} <= set(entry):
                questions.append({key: entry[key] for key in ("question_id", "image_id")})
                questions[-1]["question"] = entry["question"]
            else:
                reason = "needs question_id, image_id and question"
                problems.append(Problem(f"{name} questions[{k}]", reason, str(k)))
        questions.sort(key=lambda question: question["question_id"])
        return questions, problems

    def _pairs(self, questions_file: str, targets_file: str) -> list[dict[str, Any]]:
        """The questions of a file with their targets, by id; bad ones in front."""
        questions, problems = self._questions(questions_file)
        targets, more = read_targets(json_or_pickle(self._path(targets_file)), self.answers)
        by_id = {int(target["question_id"]): target for target in targets}
        records = self.bad_lines([*problems, *more])
        for question in questions:
            target = by_id.get(int(question["question_id"]))
            if target is None:
                records.append({**question, "error": f"has no answers in {targets_file}"})
                continue
            labels, scores = target["labels"].tolist(), target["scores"].tolist()
            records.append({**question, "labels": labels, "scores": scores})
        return records

    def tokenize(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The records with ``tokens`` in place of ``question``."""
        made, texts = [], []
        for record in records:
            question = record.get("question")
            if "error" not in record and not (isinstance(question, str) and question.strip()):
                record = {**record, "error": "the question is empty"}
            made.append({key: value for key, value in record.items() if key != "question"})
            if "error" not in record:
                texts.append(question)
        pieces = iter(self.pieces(texts))
        for record in made:
            if "error" not in record:
                record["tokens"] = next(pieces)
        return made

    def sample_of(self, record: dict[str, Any]) -> dict[str, Any]:
        mirrored = self.draw_mirror()
        visual = self.source.sample(record, mirror=mirrored)
        tokens = record["tokens"]
        if mirrored:
            tokens = self.swap(tokens)
            if len(tokens) > self.max_seq_len:  # a tokenizer may cut "right" into more pieces
                tokens = [*tokens[: self.max_seq_len - 1], self.tokenizer.sep_token_id]
        text = {kfg.U_TOKENS_IDS: as_ids(tokens), kfg.U_TOKENS_TYPE: token_types(tokens)}
        if self.stage == "test":
            return {**visual, **text}
        return {**visual, **text, kfg.U_TARGET_IDS: self.targets(record, mirrored)}

    def targets(self, record: dict[str, Any], mirrored: bool = False) -> np.ndarray:
        """(answers,) float32 soft scores of a record.

        Raises:
            SampleError: A label is no answer of the vocabulary.
        """
        answers = self.answers
        labels = np.asarray(record["labels"], dtype=np.int64)
        wrong = labels[(labels < 0) | (labels >= len(answers))]
        if wrong.size:
            raise SampleError(
                self.name_of(record),
                f"the answer with label {wrong[0]} is not among the {len(answers)} of "
                f"{os.path.basename(self.label2ans_path)}",
            )
        target = np.zeros(len(answers), dtype=np.float32)
        target[labels] = np.asarray(record["scores"], dtype=np.float32)
        if mirrored and self._sides:
            target[self._sides] = target[self._sides[::-1]]
        return target
