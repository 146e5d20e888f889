"""A loaded model that tells whether a statement about two pictures is true."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from xmodaler.config import CfgNode, kfg
from xmodaler.inference.answerer import label_probabilities
from xmodaler.inference.base import LoadedPredictor, OnError, batches, check_counts
from xmodaler.inference.fusion_attention import record_attention
from xmodaler.inference.inputs import Item, expand, is_one
from xmodaler.inference.texts import TextReader, text_list
from xmodaler.utils.errors import UserError

__all__ = ["Comparer", "Comparison"]

TRUE = 1
"""The label of a true statement."""


@dataclass(frozen=True)
class Comparison:
    """Whether a statement is true of two pictures.

    Attributes:
        ids: Paths of the pictures, or their places among the inputs.
        statement: What was stated.
        probability: That it is true.
        words: The word pieces of the statement as the model read it, where attention was asked for.
        attention: Of both pictures ``(words, rows, columns)``, where each word looked, where it
            was asked for.
    """

    ids: tuple[str, str]
    statement: str
    probability: float
    words: tuple[str, ...] = ()
    attention: tuple[np.ndarray, np.ndarray] | None = field(default=None, compare=False)

    @property
    def is_true(self) -> bool:
        """Whether it is more likely true than false."""
        return self.probability >= 0.5

    def __bool__(self) -> bool:
        return self.is_true

    def __str__(self) -> str:
        return "true" if self.is_true else "false"

    def as_dict(self) -> dict[str, Any]:
        """What goes into a line of JSON."""
        return {
            "images": list(self.ids),
            "statement": self.statement,
            "label": self.is_true,
            "probability": self.probability,
        }


class Comparer(LoadedPredictor):
    """Tells whether statements about two pictures are true.

    Args:
        model, cfg, precision, weights: As for :class:`LoadedPredictor`.
    """

    ability = (
        "tells whether statements about two pictures are true: "
        ".compare(picture_a, picture_b, statement)"
    )

    def __init__(
        self, model: torch.nn.Module, cfg: CfgNode, precision: str = "fp32", weights: str = ""
    ) -> None:
        super().__init__(model, cfg, precision, weights)
        self._read_texts = TextReader(cfg)

    def compare(
        self,
        picture_a: Any,
        picture_b: Any,
        statement: str | Sequence[str],
        batch_size: int = 16,
        on_error: OnError = "raise",
        return_attention: bool = False,
    ) -> Comparison | list[Comparison]:
        """Tells whether a statement is true of two pictures, or many statements.

        Args:
            picture_a: The first (left) picture, of the kinds that :meth:`Captioner.caption` takes;
                or many.
            picture_b: The second (right) one; as many.
            statement: One, of all pairs of pictures; or several: of one pair, or one for each of
                as many pairs.
            batch_size: Statements that go through the model together.
            on_error: What happens to one of many pairs of which a picture cannot be read; see
                :meth:`read`.
            return_attention: Fill :attr:`Comparison.attention`.

        Returns:
            A :class:`Comparison` for one pair and one statement, else a list of them, in order.

        Raises:
            UserError: A picture cannot be read, a statement is empty, or the numbers of pictures
                and statements do not fit.
        """
        check_counts(batch_size=batch_size)
        statements = text_list(statement, "statement")
        one_pair = is_one(picture_a, self.kind) and is_one(picture_b, self.kind)
        one = one_pair and isinstance(statement, str)
        pairs = self._pairs(picture_a, picture_b)
        if 1 not in (len(pairs), len(statements)) and len(pairs) != len(statements):
            raise UserError(
                f"{len(pairs)} pairs of pictures and {len(statements)} statements do not go "
                "together; give one statement, one pair, or as many of one as of the other"
            )
        number = max(len(pairs), len(statements))
        tasks = itertools.islice(
            zip(itertools.cycle(pairs), itertools.cycle(statements), strict=False), number
        )
        found: list[Comparison] = []
        for batch in batches(tasks, batch_size):
            samples = []
            for (first, second), text in batch:
                read = list(self._samples([first, second], "raise" if one else on_error))
                if len(read) == 2:  # a pair of which one half is missing says nothing
                    samples.append((read[0], read[1], text))
            if samples:
                found += self.compare_batch(samples, return_attention)
        return found[0] if one else found

    def _pairs(self, picture_a: Any, picture_b: Any) -> list[tuple[Item, Item]]:
        first, second = (list(expand(side, self.kind)) for side in (picture_a, picture_b))
        if len(first) != len(second):
            raise UserError(
                f"{len(first)} first and {len(second)} second pictures do not pair up; give as "
                "many of both"
            )
        if not first:
            raise UserError("there is no picture; two are needed")
        return list(zip(first, second, strict=True))

    @torch.inference_mode()
    def compare_batch(
        self,
        batch: Sequence[tuple[dict[str, Any], dict[str, Any], str]],
        return_attention: bool = False,
    ) -> list[Comparison]:
        """Comparisons in one pass of the model.

        Args:
            batch: Samples of both pictures with IDS and IMAGES, and a statement.
            return_attention: As in :meth:`compare`; statements then go through one by one.
        """
        if return_attention:
            return [self._shown(*sample) for sample in batch]
        ids, _ = self._read_texts([text for *_, text in batch])
        samples = [
            {**first, kfg.SECOND_IMAGES: second[kfg.IMAGES], kfg.U_TOKENS_IDS: pieces}
            for (first, second, _), pieces in zip(batch, ids, strict=True)
        ]
        inputs = self.model.preprocess_batch(samples)
        with self._autocast():
            outputs = self.model(inputs)
        shares = label_probabilities(outputs)[:, TRUE].tolist()
        return [
            Comparison((str(first[kfg.IDS]), str(second[kfg.IDS])), text, share)
            for (first, second, text), share in zip(batch, shares, strict=True)
        ]

    def _shown(self, first: dict[str, Any], second: dict[str, Any], text: str) -> Comparison:
        """One comparison, with attention where the patches make a square."""
        with record_attention(self.model) as record:
            (found,) = self.compare_batch([(first, second, text)])
        (pieces,), _ = self._read_texts([text])
        # The text is fused with both pictures, the first one in front.
        maps = [record.maps(row, len(pieces)) for row in (0, 1)]
        if maps[0] is None or maps[1] is None:
            return found
        words = tuple(self._read_texts.words(pieces))
        return replace(found, words=words, attention=(maps[0], maps[1]))
