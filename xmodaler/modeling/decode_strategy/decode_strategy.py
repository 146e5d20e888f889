"""What all decode strategies share: their settings, the vocabulary and the start of decoding."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional import load_vocab
from xmodaler.functional.trees import tensors
from xmodaler.modeling.decode_strategy.word_rules import WordRules
from xmodaler.tokenization import LazyTokenizer
from xmodaler.utils.errors import UserError, did_you_mean

State = dict[str, Any]

#: Steps between two looks, on an accelerator, at whether everything is finished: a look waits for
#: the device and so drains its queue. On a CPU it costs nothing and happens at every step.
STEPS_BETWEEN_CHECKS = 4


class StepModel(Protocol):
    """What a strategy asks of a model. R rows are B images times the sentences of each.

    ``state`` has ``"memory"`` (a tree whose tensors have B first; images that are done are taken
    out of it), ``"rows"`` (a tree whose tensors have R first, reordered between steps) and
    ``"time"`` (int).
    It may have ``"outputs"``, batch keys that decoding returns, and, after a step of a batch with
    ``RETURN_ATTENTION``, ``"attention"``: (R, N) weights of that step.
    """

    def start(self, batch: dict[str, Any]) -> State:
        """Encode the images of a batch; the state has R = B rows."""

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Read one word per row, (R,) int64, and return (R, V) logits of the next one."""


class DecodeStrategy(nn.Module, ABC):
    """Base of the strategies; a subclass implements ``_forward(batched_inputs, model)``.

    A strategy has no parameters and knows nothing of the network: it calls ``model.start`` once
    and ``model.step`` once per word (see :class:`StepModel`).

    Args:
        vocab_path: Vocabulary file, read when a sentence is first asked for. ``""`` for none.
        beam_size: Hypotheses per image.
        max_seq_len: Greatest number T of words, the end of sentence included.
        bert_tokenizer: Tokenizer that turns ids into text in place of a vocabulary file.
        bos_token_id: Id that begins every sentence; None for [CLS] of ``bert_tokenizer``.
        eos_token_id: Id that ends a sentence; None for [SEP] of ``bert_tokenizer``.
        vocab_size: V of the model, to be checked against the vocabulary file; None skips that.
        length_penalty: Exponent of the length by which beam search divides scores; 0 for none.
        min_length: Words before which no sentence ends.
        no_repeat_ngram: No n-gram of this many words occurs twice in a sentence; 0 for no rule.
        suppress_words: Words (or their ids) that are never generated.
        temperature: Logits are divided by it before sampling.
        top_k: Sampling draws from the k most probable words only; 0 for all.
        top_p: Sampling draws from the smallest set of words of at least this probability.
    """

    @configurable
    def __init__(
        self,
        *,
        vocab_path: str = "",
        beam_size: int = 1,
        max_seq_len: int = 20,
        bert_tokenizer: Any = None,
        bos_token_id: int | None = 0,
        eos_token_id: int | None = 0,
        vocab_size: int | None = None,
        length_penalty: float = 0.0,
        min_length: int = 0,
        no_repeat_ngram: int = 0,
        suppress_words: Sequence[str | int] = (),
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> None:
        super().__init__()
        _check_range("DECODE_STRATEGY.BEAM_SIZE", beam_size, beam_size >= 1, "at least 1")
        _check_range("MODEL.MAX_SEQ_LEN", max_seq_len, max_seq_len >= 1, "at least 1")
        _check_range("DECODE_STRATEGY.TEMPERATURE", temperature, temperature > 0, "above 0")
        _check_range("DECODE_STRATEGY.TOP_K", top_k, top_k >= 0, "0 (all words) or more")
        _check_range("DECODE_STRATEGY.TOP_P", top_p, 0 < top_p <= 1, "above 0 and at most 1")
        _check_range(
            "DECODE_STRATEGY.MIN_LENGTH",
            min_length,
            0 <= min_length < max_seq_len,
            f"0 or more and below the greatest length, {max_seq_len}",
        )
        _check_range(
            "DECODE_STRATEGY.NO_REPEAT_NGRAM", no_repeat_ngram, no_repeat_ngram >= 0, "0 or more"
        )
        self.vocab_path = vocab_path
        self.beam_size = beam_size
        self.max_seq_len = max_seq_len
        self.bert_tokenizer = bert_tokenizer
        self._bos_token_id = bos_token_id
        self._eos_token_id = eos_token_id
        self.vocab_size = vocab_size
        self.length_penalty = length_penalty
        self.min_length = min_length
        self.no_repeat_ngram = no_repeat_ngram
        self.suppress_words = tuple(suppress_words)
        self.temperature = temperature
        self.top_k = top_k
        self.top_p = top_p
        self._vocab: list[str] | None = None

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """The keywords of the constructor that a config sets."""
        options = cfg.DECODE_STRATEGY
        settings = {
            "vocab_path": cfg.INFERENCE.VOCAB,
            "beam_size": options.BEAM_SIZE,
            "max_seq_len": options.MAX_LENGTH or cfg.MODEL.MAX_SEQ_LEN,
            "bert_tokenizer": None,
            "bos_token_id": 0,
            "eos_token_id": 0,
            "vocab_size": cfg.MODEL.VOCAB_SIZE,
            "length_penalty": options.LENGTH_PENALTY,
            "min_length": options.MIN_LENGTH,
            "no_repeat_ngram": options.NO_REPEAT_NGRAM,
            "suppress_words": options.SUPPRESS_WORDS,
            "temperature": options.TEMPERATURE,
            "top_k": options.TOP_K,
            "top_p": options.TOP_P,
        }
        if cfg.INFERENCE.VOCAB == "BERT":
            settings.update(bert_tokenizer=LazyTokenizer(cfg), bos_token_id=None, eos_token_id=None)
        return settings

    @property
    def bos_token_id(self) -> int:
        """Id that begins every sentence."""
        given = self._bos_token_id
        return self.bert_tokenizer.cls_token_id if given is None else given

    @property
    def eos_token_id(self) -> int:
        """Id that ends a sentence."""
        given = self._eos_token_id
        return self.bert_tokenizer.sep_token_id if given is None else given

    def forward(
        self, batched_inputs: dict[str, Any], output_sents: bool, model: StepModel
    ) -> dict[str, Any]:
        """Generate a sentence, or several, for every image of a batch.

        Args:
            batched_inputs: The batch; it is not changed.
            output_sents: Whether to add the sentences as text under ``OUTPUT``.
            model: The model to ask for words.

        Returns:
            The batch with ``G_SENTS_IDS`` (int64) and ``G_LOGP`` (float), and what the strategy
            and ``state["outputs"]`` add. ``OUTPUT`` is a list of B sentences, or of B lists of
            them where several per image are asked for.
        """
        outputs = self._forward(batched_inputs, model)
        if output_sents:
            outputs[kfg.OUTPUT] = self.sentences(outputs[kfg.G_SENTS_IDS])
        return {**batched_inputs, **outputs}

    @abstractmethod
    def _forward(self, batched_inputs: dict[str, Any], model: StepModel) -> dict[str, Any]:
        """Return ``G_SENTS_IDS``, ``G_LOGP`` and other new keys of the batch."""

    @property
    def vocab(self) -> list[str] | None:
        """Words by id, id 0 ending a sentence; None where there is no vocabulary file."""
        if self._vocab is None and self.bert_tokenizer is None and self.vocab_path:
            self._vocab = self._read_vocabulary()
        return self._vocab

    def _read_vocabulary(self) -> list[str]:
        try:
            words = load_vocab(self.vocab_path)
        except UserError as error:
            raise UserError(
                f"INFERENCE.VOCAB: {error}; give the vocabulary file the model was trained with."
            ) from error
        if self.vocab_size is not None and len(words) != self.vocab_size:
            raise UserError(
                f"The vocabulary file '{self.vocab_path}' (INFERENCE.VOCAB) has {len(words) - 1} "
                f"words, but MODEL.VOCAB_SIZE {self.vocab_size} needs {self.vocab_size - 1} "
                "(id 0 ends a sentence); give the file the model was trained with."
            )
        return words

    def sentences(self, ids: Tensor) -> list[Any]:
        """Turn ids into text.

        Args:
            ids: (..., T) int64; a sentence ends before the first end-of-sentence id.

        Returns:
            Sentences in lists nested like the leading dimensions of ``ids``.
        """
        if self.bert_tokenizer is None and self.vocab is None:
            raise UserError(
                "Sentences were asked for but INFERENCE.VOCAB is empty; name the vocabulary file "
                "the model was trained with."
            )
        return self._text(ids.tolist())

    def _text(self, ids: list[Any]) -> Any:
        if ids and isinstance(ids[0], list):
            return [self._text(row) for row in ids]
        if self.eos_token_id in ids:
            ids = ids[: ids.index(self.eos_token_id)]
        if self.bert_tokenizer is not None:
            words = [self.bert_tokenizer.ids_to_tokens[i] for i in ids]
            return self.bert_tokenizer.convert_tokens_to_string(words)
        return " ".join(self.vocab[i] for i in ids)

    def word_rules(self) -> WordRules | None:
        """The rules that forbid words, or None when there are none."""
        if not self.suppress_words and not self.no_repeat_ngram and not self.min_length:
            return None
        suppressed = [self._word_id(word) for word in self.suppress_words]
        return WordRules(suppressed, self.no_repeat_ngram, self.min_length, self.eos_token_id)

    def _word_id(self, word: str | int) -> int:
        if isinstance(word, int):
            return word
        if self.bert_tokenizer is not None:
            ids = self.bert_tokenizer.vocab
        else:
            # Id 0, the end of a sentence, is no word.
            ids = {word: index for index, word in enumerate(self.vocab or []) if index}
        if word not in ids:
            raise UserError(
                f"DECODE_STRATEGY.SUPPRESS_WORDS names '{word}', which is not in the vocabulary "
                f"'{self.vocab_path}' (INFERENCE.VOCAB)" + (did_you_mean(word, ids) or ".")
            )
        return ids[word]

    def steps_between_checks(self, device: torch.device) -> int:
        """After how many steps to look again whether every sentence is finished."""
        return 1 if device.type == "cpu" else STEPS_BETWEEN_CHECKS


def first_words(state: State, bos_token_id: int) -> Tensor:
    """(B,) int64 tokens that begin one sentence per image of a fresh state."""
    for part in ("rows", "memory"):
        for tensor in tensors(state[part]):
            return torch.full((tensor.size(0),), bos_token_id, device=tensor.device)
    raise ValueError("model.start() returned a state without a tensor in 'rows' or 'memory'")


def log_softmax(logits: Tensor) -> Tensor:
    """Log-probabilities, at least in single precision."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return torch.log_softmax(logits, dim=-1)


def _check_range(key: str, value: float, holds: bool, meaning: str) -> None:
    if not holds:
        raise UserError(f"{key} is {value}; it must be {meaning}.")
