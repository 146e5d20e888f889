"""A loaded model that answers questions about pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import CfgNode, kfg
from xmodaler.inference.arrays import run_dataset
from xmodaler.inference.base import LoadedPredictor, OnError, check_counts
from xmodaler.inference.fusion_attention import record_attention
from xmodaler.inference.inputs import is_one
from xmodaler.inference.texts import TextReader, text_list
from xmodaler.modeling.stage_keys import SCORES_ONLY
from xmodaler.utils.errors import UserError

__all__ = ["Answer", "Answerer", "label_probabilities"]


@dataclass(frozen=True)
class Answer(Sequence[tuple[str, float]]):
    """The answers to a question, best first, as pairs of a text and its probability.

    Attributes:
        id: Path of the picture, or its place among the inputs.
        question: What was asked.
        candidates: The answers with their probabilities.
        words: The word pieces of the question as the model read it, where attention was asked for.
        attention: ``(words, rows, columns)``, where each of them looked, where it was asked for;
            of a video, in the mean of its frames.
    """

    id: str
    question: str
    candidates: tuple[tuple[str, float], ...]
    words: tuple[str, ...] = ()
    attention: np.ndarray | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """The best answer."""
        return self.candidates[0][0]

    @property
    def probability(self) -> float:
        """That of the best answer."""
        return self.candidates[0][1]

    def __len__(self) -> int:
        return len(self.candidates)

    def __getitem__(self, place: Any) -> Any:
        return self.candidates[place]

    def __str__(self) -> str:
        return self.text

    def as_dict(self) -> dict[str, Any]:
        """What goes into a line of JSON."""
        answers = [{"answer": text, "probability": value} for text, value in self.candidates]
        return {
            "image": self.id,
            "question": self.question,
            "answer": self.text,
            "probability": self.probability,
            "answers": answers,
        }


class Answerer(LoadedPredictor):
    """Answers questions about pictures, or videos, with the answers of its vocabulary.

    Args:
        model, cfg, precision, weights: As for :class:`LoadedPredictor`.
    """

    ability = "answers questions about pictures: .answer(picture, question)"

    def __init__(
        self, model: torch.nn.Module, cfg: CfgNode, precision: str = "fp32", weights: str = ""
    ) -> None:
        super().__init__(model, cfg, precision, weights)
        self.vocabulary = self._answers_of(cfg, weights)
        self._read_texts = TextReader(cfg)

    def _answers_of(self, cfg: CfgNode, weights: str) -> list[str]:
        """The answers that the model can give."""
        vocabulary = _vocabulary(cfg)
        setting = "X2VLM.NUM_LABELS" if "X2VLM" in cfg.MODEL else "MM_PREDICTOR.LABELS_NUM"
        node, name = setting.split(".")
        labels = cfg.MODEL[node][name]
        if "X2VLM" in cfg.MODEL:  # a model may know the first of a longer list alone
            vocabulary = vocabulary[:labels]
        if len(vocabulary) != labels:
            raise UserError(
                f"the answer vocabulary has {len(vocabulary)} answers but the model of "
                f"'{weights}' {labels} labels (MODEL.{setting}); give the one that it was trained "
                "with (DATALOADER.ANSWERS)"
            )
        return vocabulary

    def answer(
        self,
        picture: Any,
        question: str | Sequence[str],
        top_k: int = 5,
        batch_size: int = 32,
        on_error: OnError = "raise",
        return_attention: bool = False,
    ) -> Answer | list[Answer]:
        """Answers a question about a picture, or many.

        Args:
            picture: One or many, of the kinds that :meth:`Captioner.caption` takes.
            question: One, which is asked of every picture; or several: about one picture, or one
                for each of as many pictures.
            top_k: Answers to give for each question.
            batch_size: Questions that go through the model together.
            on_error: What happens to one of many pictures that cannot be read; see :meth:`read`.
            return_attention: Fill :attr:`Answer.attention`, of models with fusion layers.

        Returns:
            An :class:`Answer` for one picture and one question, else a list of them, in order.

        Raises:
            UserError: A picture cannot be read, a question is empty, or the numbers of pictures
                and questions do not fit.
        """
        one = is_one(picture, self.kind) and isinstance(question, str)
        on_error = "raise" if one else on_error
        found = self.stream(picture, question, top_k, batch_size, on_error, return_attention)
        return next(found) if one else list(found)

    def stream(
        self,
        picture: Any,
        question: str | Sequence[str],
        top_k: int = 5,
        batch_size: int = 32,
        on_error: OnError = "raise",
        return_attention: bool = False,
    ) -> Iterator[Answer]:
        """As :meth:`answer`, but gives answers as soon as their batch is done."""
        check_counts(top_k=top_k, batch_size=batch_size)
        questions = text_list(question, "question")
        for batch in self.paired(picture, questions, batch_size, on_error):
            yield from self.answer_batch(batch, top_k, return_attention)

    @torch.inference_mode()
    def answer_batch(
        self,
        batch: Sequence[tuple[dict[str, Any], Sequence[str]]],
        top_k: int = 5,
        return_attention: bool = False,
    ) -> list[Answer]:
        """Answers in one pass of the model.

        Args:
            batch: Samples with IDS and visual keys, each with as many questions.
            top_k: As in :meth:`answer`.
            return_attention: As in :meth:`answer`; questions then go through one by one.
        """
        if return_attention:
            asked = [(sample, text) for sample, texts in batch for text in texts]
            return [self._shown(sample, text, top_k) for sample, text in asked]
        samples = []
        for sample, texts in batch:
            ids, types = self._read_texts(texts)
            samples.append({**sample, kfg.U_TOKENS_IDS: ids, kfg.U_TOKENS_TYPE: types})
        inputs = self.model.preprocess_batch(samples)
        with self._autocast():
            labels, probabilities = self._best(inputs, top_k)
        asked = [(str(sample[kfg.IDS]), text) for sample, texts in batch for text in texts]
        found = zip(asked, labels.tolist(), probabilities.tolist(), strict=True)
        return [
            Answer(
                name,
                question,
                tuple((self.vocabulary[k], p) for k, p in zip(labels, shares, strict=True)),
            )
            for (name, question), labels, shares in found
        ]

    def _shown(self, sample: dict[str, Any], question: str, top_k: int) -> Answer:
        """The answer to one question, with attention where there is any."""
        with record_attention(self.model) as record:
            (answer,) = self.answer_batch([(sample, [question])], top_k)
        (pieces,), _ = self._read_texts([question])
        attention = record.maps(0, len(pieces))
        if attention is None:
            return answer
        words = tuple(self._read_texts.words(pieces))
        return replace(answer, words=words, attention=attention)

    def _best(self, batch: dict[str, Any], top_k: int) -> tuple[Tensor, Tensor]:
        """The best answers (R, k) to the questions of a batch, and their probabilities (R, k)."""
        outputs = self.model({**batch, SCORES_ONLY: True})
        best = label_probabilities(outputs).topk(min(top_k, len(self.vocabulary)), dim=1)
        return best.indices, best.values


def _vocabulary(cfg: CfgNode) -> list[str]:
    """What labels mean: a list of the run, or what its data set always has."""
    from xmodaler.evaluation.vqa_truth import read_label_answers

    fixed = getattr(run_dataset(cfg), "labels", ())
    return list(fixed) if fixed and not cfg.DATALOADER.ANSWERS else read_label_answers(cfg)


def label_probabilities(outputs: dict[str, Any]) -> Tensor:
    """Probabilities of labels ``(R, C)``: softmax, averaged over the streams that score them."""
    logits = [outputs[key] for key in (kfg.U_LOGITS, kfg.G_LOGITS) if key in outputs]
    return torch.stack([part.float().softmax(-1) for part in logits]).mean(0)
