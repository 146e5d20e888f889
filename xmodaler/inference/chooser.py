"""A loaded model that chooses among given answers or rationales."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from xmodaler.config import CfgNode, kfg
from xmodaler.datasets.images.understanding import as_ids
from xmodaler.datasets.images.vcr import MAX_LENGTHS
from xmodaler.datasets.images.vcr_text import (
    ChoiceTexts,
    Row,
    object_names,
    person_numbers,
    sentence,
)
from xmodaler.inference.base import LoadedPredictor, OnError, check_counts
from xmodaler.inference.inputs import is_one
from xmodaler.inference.texts import checked_text
from xmodaler.modeling.stage_keys import SCORES_ONLY
from xmodaler.tokenization import LazyTokenizer
from xmodaler.utils.errors import UserError

__all__ = ["Choice", "Chooser"]

#: A text, or words mixed with lists of numbers of objects, as VCR writes them.
Text = str | Sequence[Any]


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        id: Path of the picture, or its place among the inputs.
        question: What was asked, objects by name.
        choices: What there was to choose from, objects by name.
        probabilities: Of each choice.
        given: The answer that rationales were chosen for, or ''.
    """

    id: str
    question: str
    choices: tuple[str, ...]
    probabilities: tuple[float, ...]
    given: str = ""

    @property
    def index(self) -> int:
        """The place of the best choice, from 0."""
        return self.probabilities.index(max(self.probabilities))

    @property
    def text(self) -> str:
        """The best choice."""
        return self.choices[self.index]

    @property
    def probability(self) -> float:
        """That of the best choice."""
        return self.probabilities[self.index]

    def __str__(self) -> str:
        return self.text

    def as_dict(self) -> dict[str, Any]:
        """What goes into a line of JSON."""
        pairs = zip(self.choices, self.probabilities, strict=True)
        return {
            "image": self.id,
            "question": self.question,
            **({"given": self.given} if self.given else {}),
            "answer": self.text,
            "index": self.index,
            "choices": [{"answer": text, "probability": value} for text, value in pairs],
        }


class Chooser(LoadedPredictor):
    """Chooses among answers to a question, or among rationales for an answer.

    Args:
        model, cfg, precision, weights: As for :class:`LoadedPredictor`.
    """

    ability = "chooses among answers: .choose(picture, question, answers)"

    def __init__(
        self, model: torch.nn.Module, cfg: CfgNode, precision: str = "fp32", weights: str = ""
    ) -> None:
        super().__init__(model, cfg, precision, weights)
        tokenizer, length = LazyTokenizer(cfg), cfg.DATALOADER.VCR_MAX_SEQ_LEN
        self._answers, self._rationales = (
            ChoiceTexts(tokenizer, length if length > 0 else MAX_LENGTHS[task])
            for task in ("VCR_Q-A", "VCR_QA-R")
        )

    def choose(
        self,
        picture: Any,
        question: Text | Sequence[Text],
        answers: Sequence[Text],
        objects: Sequence[str] | None = None,
        given: Text = "",
        batch_size: int = 16,
        on_error: OnError = "raise",
    ) -> Choice | list[Choice]:
        """Chooses an answer to a question about a picture, or to many.

        Args:
            picture: One or many, of the kinds that :meth:`Captioner.caption` takes.
            question: A text, which is asked about every picture; or a list of texts: about one
                picture, or one for each of as many. With ``objects``, one question may also be a
                list of words and of lists of numbers of objects, as VCR writes it:
                ``["Why", "is", [0], "smiling", "?"]``.
            answers: At least two, each of the kinds of a question; the same for every question.
            objects: Classes of the objects that texts refer to; a person is called by a neutral
                name, others by their class.
            given: The answer that was given: then ``answers`` are rationales to choose from.
            batch_size: Pictures that go through the model together, with all their answers.
            on_error: What happens to one of many pictures that cannot be read; see :meth:`read`.

        Returns:
            A :class:`Choice` for one picture and one question, else a list of them, in order.

        Raises:
            UserError: A picture cannot be read, a text is empty, there are not two answers, or a
                text refers to an object that is not there.
        """
        one = _is_text(question, objects)
        single = one and is_one(picture, self.kind)
        questions = [question] if one else list(question)
        found = self.stream(
            picture, questions, answers, objects, given, batch_size, "raise" if single else on_error
        )
        return next(found) if single else list(found)

    def stream(
        self,
        picture: Any,
        questions: Sequence[Text],
        answers: Sequence[Text],
        objects: Sequence[str] | None = None,
        given: Text = "",
        batch_size: int = 16,
        on_error: OnError = "raise",
    ) -> Iterator[Choice]:
        """As :meth:`choose` of a list of questions, but gives choices as soon as they are made."""
        check_counts(batch_size=batch_size)
        names = object_names(list(objects or ()), person_numbers())
        asked = [_plain(text, names, "question") for text in questions]
        if not asked:
            raise UserError("there is no question; at least one is needed")
        offered = [_plain(text, names, f"answer {k}") for k, text in enumerate(_listed(answers))]
        if len(offered) < 2:
            raise UserError(f"there is {len(offered)} answer to choose from; at least two are due")
        known = _plain(given, names, "the given answer") if given else ""
        for batch in self.paired(picture, asked, batch_size, on_error):
            yield from self.choose_batch(batch, tuple(offered), known)

    @torch.inference_mode()
    def choose_batch(
        self,
        batch: Sequence[tuple[dict[str, Any], Sequence[str]]],
        offered: tuple[str, ...],
        given: str = "",
    ) -> list[Choice]:
        """Choices in one pass of the model.

        Args:
            batch: Samples with IDS and visual keys, each with as many questions.
            offered: What there is to choose from, for every question.
            given: As in :meth:`choose`, objects by name.
        """
        samples, asked = [], []
        for sample, questions in batch:
            rows = [row for question in questions for row in self._rows(question, offered, given)]
            words = {
                kfg.U_TOKENS_IDS: [as_ids(pieces) for pieces, _ in rows],
                kfg.U_TOKENS_TYPE: [as_ids(types) for _, types in rows],
            }
            samples.append({**sample, **words})
            asked += [(str(sample[kfg.IDS]), question) for question in questions]
        inputs = self.model.preprocess_batch(samples)
        with self._autocast():
            outputs = self.model({**inputs, SCORES_ONLY: True})
        shares = outputs[kfg.U_LOGITS].float().reshape(-1, len(offered)).softmax(-1).tolist()
        return [
            Choice(name, question, offered, tuple(row), given)
            for (name, question), row in zip(asked, shares, strict=True)
        ]

    def _rows(self, question: str, offered: Sequence[str], given: str) -> list[Row]:
        if given:
            return self._rationales.rationale_rows(question, [given], offered)
        return self._answers.answer_rows(question, offered)


def _is_text(question: Any, objects: Sequence[str] | None) -> bool:
    """Whether it is one text: a string, or VCR's mixture of words and lists of numbers."""
    if isinstance(question, str):
        return True
    if objects is None or not isinstance(question, list | tuple):
        return False
    return any(isinstance(part, list) and all(type(n) is int for n in part) for part in question)


def _listed(answers: Any) -> Sequence[Text]:
    if isinstance(answers, str) or not isinstance(answers, Sequence):
        raise UserError(f"answers is a {type(answers).__name__}; a list of texts is needed")
    return answers


def _plain(text: Text, names: Sequence[str], what: str) -> str:
    """A text in which objects have names."""
    if isinstance(text, list | tuple):
        try:
            text = sentence(text, names)
        except ValueError as error:
            raise UserError(f"{what} {error}") from None
    return checked_text(text, what)
