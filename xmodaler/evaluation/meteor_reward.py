"""METEOR as a reward of training, where Java is there."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.config import configurable
from xmodaler.functional import load_vocab
from xmodaler.scorer import SCORER_REGISTRY, Reward
from xmodaler.scorer.references import Hypotheses, References
from xmodaler.scorer.reward import Score
from xmodaler.utils.errors import UserError

from .java_metrics import JAVA_METRICS, why_unavailable

if TYPE_CHECKING:
    from xmodaler.config import CfgNode


@SCORER_REGISTRY.register()
class Meteor(Reward):
    """METEOR (Denkowski & Lavie 2014) of every sentence, by one Java program for the whole run.

    It aligns words by form, stem, synonym and paraphrase, hence works on text; the end word has no
    part in it. It is far slower than the other rewards.

    Args:
        vocab_path: The vocabulary that turns ids into words; not read where the references are
            words themselves.
        eos_id: The end word.

    Raises:
        UserError: Java or the package that brings METEOR is absent, or there is no vocabulary.
    """

    @configurable
    def __init__(self, *, vocab_path: str, eos_id: int = 0) -> None:
        reason = why_unavailable("METEOR")
        if reason is not None:
            raise UserError(f"the reward Meteor cannot be computed here: {reason}")
        self.vocab_path = vocab_path
        self.eos_id = eos_id

    @classmethod
    def from_config(cls, cfg: "CfgNode") -> dict[str, Any]:
        return {"vocab_path": cfg.INFERENCE.VOCAB, "eos_id": cfg.SCORER.EOS_ID}

    def method(self) -> str:
        return "METEOR"

    def bind(self, references: References) -> Score:
        module, class_name, _ = JAVA_METRICS["METEOR"]
        program = getattr(importlib.import_module(module), class_name)()
        vocabulary = references.vocabulary
        words = load_vocab(self.vocab_path) if vocabulary is None else list(vocabulary)

        def score(sentences: Hypotheses) -> np.ndarray:
            known = [*words, *sentences.new_words]

            def text(ids: Sequence[int]) -> str:
                shown = (i for i in ids if vocabulary is not None or i != self.eos_id)
                return " ".join(known[i] for i in shown)

            texts = [text(words) for words in sentences.sentences()]
            scores = np.zeros(len(texts))
            # The program cannot read an empty sentence, whose score is 0.
            rows = [row for row, own in enumerate(texts) if own]
            if rows:
                places = sentences.images[rows]
                truth = {
                    row: [text(words) for words in references.captions(place)]
                    for row, place in zip(rows, places, strict=True)
                }
                _, found = program.compute_score(truth, {row: [texts[row]] for row in rows})
                scores[rows] = found
            return scores

        return score
