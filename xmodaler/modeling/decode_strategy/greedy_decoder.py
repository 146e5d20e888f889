"""Greedy decoding and sampling."""

from typing import Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.functional.trees import reorder
from xmodaler.modeling.decode_strategy.build import DECODE_STRATEGY_REGISTRY
from xmodaler.modeling.decode_strategy.decode_strategy import (
    DecodeStrategy,
    State,
    StepModel,
    first_words,
    log_softmax,
)
from xmodaler.modeling.decode_strategy.word_rules import truncate


@DECODE_STRATEGY_REGISTRY.register()
class GreedyDecoder(DecodeStrategy):
    """Takes the most probable word at every step, or draws one.

    With ``DECODE_BY_SAMPLE`` in the batch each step makes one ``torch.multinomial`` draw for all
    rows from softmax(logits / temperature), truncated to ``top_k`` words and to probability
    ``top_p``. ``SAMPLES_PER_IMAGE`` (int G) draws G sentences for each image, which is encoded
    once; the result then has R = B * G rows, those of an image adjacent.

    A finished row goes on with end-of-sentence ids while others are unfinished. Its
    ``G_LOGP`` there is that of the word it would have taken, and zero once all rows are finished:
    a consumer masks what lies behind the first end of sentence, as the reward criterion does.
    """

    def _forward(self, batched_inputs: dict[str, Any], model: StepModel) -> dict[str, Any]:
        sample = bool(batched_inputs.get(kfg.DECODE_BY_SAMPLE, False))
        state = model.start(batched_inputs)
        words = first_words(state, self.bos_token_id)
        group = int(batched_inputs.get("SAMPLES_PER_IMAGE", 1))
        if group > 1:
            words = words.repeat_interleave(group)
            index = torch.arange(words.numel() // group, device=words.device)
            state = {**state, "rows": reorder(state["rows"], index.repeat_interleave(group))}
        outputs = state.get("outputs", {})
        ids, log_probs, attention = self._generate(words, state, model, sample)
        result = {
            **outputs,
            kfg.G_SENTS_IDS: self._pad(ids, self.eos_token_id),
            kfg.G_LOGP: self._pad(log_probs, 0.0),
        }
        if attention:
            result["ATTENTION_MAPS"] = self._pad(attention, 0.0)
        return result

    def _generate(
        self, words: Tensor, state: State, model: StepModel, sample: bool
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        rules = self.word_rules()
        check_period = self.steps_between_checks(words.device)
        unfinished = torch.ones_like(words, dtype=torch.bool)
        ids: list[Tensor] = []
        log_probs: list[Tensor] = []
        attention: list[Tensor] = []
        for time in range(self.max_seq_len):
            logits, state = model.step(words, state)
            if sample and self.temperature != 1.0:
                logits = logits / self.temperature
            log_prob = log_softmax(logits)
            if rules is not None:
                history = torch.stack(ids, 1) if ids else words.new_zeros(words.numel(), 0)
                log_prob = rules(log_prob, history)
            word_log_prob, words = self._draw(log_prob) if sample else log_prob.max(dim=-1)
            # Steps that only happen because the last look was too early leave no trace.
            word_log_prob = torch.where(unfinished.any(), word_log_prob, 0.0)
            unfinished = unfinished & (words != self.eos_token_id)
            words = torch.where(unfinished, words, self.eos_token_id)
            ids.append(words)
            log_probs.append(word_log_prob)
            if state.get("attention") is not None:
                attention.append(state["attention"])
            if (time + 1) % check_period == 0 and not unfinished.any():
                break
        return ids, log_probs, attention

    def _draw(self, log_probs: Tensor) -> tuple[Tensor, Tensor]:
        log_probs = truncate(log_probs, self.top_k, self.top_p)
        words = torch.multinomial(log_probs.detach().exp(), 1)
        return log_probs.gather(1, words).squeeze(1), words.squeeze(1)

    def _pad(self, steps: list[Tensor], fill: float) -> Tensor:
        """(R, T, ...) from one (R, ...) tensor for each of the first steps."""
        steps = steps + [torch.full_like(steps[0], fill)] * (self.max_seq_len - len(steps))
        return torch.stack(steps, dim=1)
