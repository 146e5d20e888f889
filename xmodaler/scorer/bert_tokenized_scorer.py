"""The reward of sentences of word pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.config import configurable
from xmodaler.utils.errors import UserError

from .base_scorer import BaseScorer, to_numpy
from .build import SCORER_REGISTRY
from .cider_files import read_word_references
from .references import Hypotheses, References

if TYPE_CHECKING:
    from xmodaler.config import CfgNode
    from xmodaler.tokenization import BertTokenizer

# Stands behind every sentence in place of the end token.
END_WORD = "."


def words_of(tokenizer: BertTokenizer, ids: Sequence[int]) -> list[str]:
    """The words that word pieces make up."""
    tokens = tokenizer.convert_ids_to_tokens(list(ids))
    return tokenizer.convert_tokens_to_string(tokens).split()


@SCORER_REGISTRY.register()
class BertTokenizedScorer(BaseScorer):
    """Rewards sentences of BERT's word pieces as sentences of words, as
    :class:`~xmodaler.scorer.base_scorer.BaseScorer` does those of word ids.

    The pieces before the first ``[SEP]`` are joined to words. A sentence that has a ``[SEP]`` gets
    a last word ".", with which every reference ends: a model is rewarded for ending where people
    end.

    Args:
        types, scorers, weights: As for BaseScorer.
        gt_path: File of the training captions, ``{image id: [[word, ..], ..]}``, see
            :func:`~xmodaler.scorer.cider_files.read_word_references`; or such a dict itself.
        bert_tokenizer: Turns ids into word pieces and pieces into words.
        count_eos: Whether the last word "." counts as a word.
    """

    @configurable
    def __init__(
        self,
        *,
        types: Sequence[str],
        scorers: Sequence[Any],
        weights: Sequence[float],
        gt_path: str | Mapping[str, list[list[str]]],
        bert_tokenizer: BertTokenizer,
        count_eos: bool = True,
    ) -> None:
        self.bert_tokenizer = bert_tokenizer
        super().__init__(
            types=types,
            scorers=scorers,
            weights=weights,
            gt_path=gt_path,
            eos_id=bert_tokenizer.sep_token_id,
            count_eos=count_eos,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        from xmodaler.tokenization import build_tokenizer

        tokenizer = build_tokenizer(cfg)
        if tokenizer.sep_token_id != cfg.SCORER.EOS_ID:
            raise UserError(
                f"SCORER.EOS_ID is {cfg.SCORER.EOS_ID}, but the token that ends a sentence, "
                f"{tokenizer.sep_token}, has the id {tokenizer.sep_token_id} in "
                f"'{cfg.MODEL.PRETRAINING.MODEL_NAME}' (MODEL.PRETRAINING.MODEL_NAME)"
            )
        arguments = super().from_config(cfg)
        del arguments["eos_id"], arguments["vocab_size"]
        return {**arguments, "bert_tokenizer": tokenizer}

    def read(self, captions: str | Mapping[str, Any], source: str) -> References:
        if not isinstance(captions, Mapping):
            captions = read_word_references(captions)
        vocabulary = {END_WORD: 0}
        self.end = vocabulary[END_WORD]
        numbered = {
            name: [
                [vocabulary.setdefault(word, len(vocabulary)) for word in words] for words in own
            ]
            for name, own in captions.items()
        }
        return References(self._without_ends(numbered), source, vocabulary)

    def get_sents(self, sent: Any) -> list[list[str]]:
        """The words of every row of ``sent`` (R, T)."""
        rows = to_numpy(sent)
        ends = rows == self.eos_id
        lengths = np.where(ends.any(axis=1), ends.argmax(axis=1), rows.shape[1])
        sentences = []
        for row, length in zip(rows.tolist(), lengths.tolist(), strict=True):
            words = words_of(self.bert_tokenizer, row[:length])
            ended = length < len(row) and self.count_eos
            sentences.append([*words, END_WORD] if ended else words)
        return sentences

    def hypotheses(self, ids: Sequence[str], words: Any) -> Hypotheses:
        words = to_numpy(words)
        sentences = self.get_sents(words.reshape(-1, words.shape[-1]))
        known = self.references.vocabulary
        # Ids behind the last one, for this batch alone, so that nothing grows.
        new_words = sorted({word for own in sentences for word in own if word not in known})
        new = {word: len(known) + place for place, word in enumerate(new_words)}
        numbered = [[new[w] if w in new else known[w] for w in own] for own in sentences]
        return Hypotheses.from_lists(self._images(ids, len(numbered)), numbered, new_words)
