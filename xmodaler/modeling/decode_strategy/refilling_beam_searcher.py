"""Beam search in which a completed sentence makes room for another one."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.functional.trees import reorder
from xmodaler.modeling.decode_strategy.beam_searcher import (
    SHARE_WORTH_DROPPING,
    Beams,
    BeamSearcher,
    Step,
    spread,
)
from xmodaler.modeling.decode_strategy.build import DECODE_STRATEGY_REGISTRY
from xmodaler.modeling.decode_strategy.decode_strategy import State, StepModel


@dataclass
class Completed:
    """The best completed sentences of B images, K each, best first.

    Attributes:
        scores: (B, K), with the length penalty; minus infinity where there is none yet.
        times: (B, K) int64, the step at which they were completed.
        slots: (B, K) int64, their place in the beam at that step.
    """

    scores: Tensor
    times: Tensor
    slots: Tensor

    @classmethod
    def none(cls, images: int, beams: int, device: torch.device) -> "Completed":
        """No sentence yet."""
        places = torch.zeros(images, beams, dtype=torch.int64, device=device)
        scores = torch.full((images, beams), float("-inf"), device=device)
        return cls(scores, places, places)

    def with_more(self, images: Tensor, scores: Tensor, time: int) -> "Completed":
        """The best of these and of scores (A, K) of a step, minus infinity where none ended."""
        slots = torch.arange(scores.size(1), device=scores.device).expand_as(scores)
        both = torch.cat([self.scores[images], scores.to(self.scores.dtype)], dim=1)
        best, chosen = both.topk(self.scores.size(1), dim=1)
        times = torch.cat([self.times[images], torch.full_like(slots, time)], dim=1)
        slots = torch.cat([self.slots[images], slots], dim=1)
        return Completed(
            self.scores.index_copy(0, images, best),
            self.times.index_copy(0, images, times.gather(1, chosen)),
            self.slots.index_copy(0, images, slots.gather(1, chosen)),
        )


@DECODE_STRATEGY_REGISTRY.register()
class RefillingBeamSearcher(BeamSearcher):
    """Always continues K sentences: those that are completed are put aside (X²-VLM, UniLM).

    With ``length_penalty`` a > 0 scores are divided by ``((5 + length) / 6)^a`` (Wu et al. 2016,
    equation 14, where the end of sentence counts as a word). The result are the best of all
    completed sentences and of those that the greatest length cut off.

    An image is done when nothing that is still continued can overtake its n best completed
    sentences, or when all K sentences of a step are completed.
    """

    def _forward(self, batched_inputs: dict[str, Any], model: StepModel) -> dict[str, Any]:
        out_size, state, words = self._begin(batched_inputs, model)
        completed, steps = self._collect(words, state, model, out_size)
        result = {**state.get("outputs", {}), **self._sentences(completed, steps, out_size)}
        return self._one_or_many(result, out_size)

    def _collect(
        self, words: Tensor, state: State, model: StepModel, out_size: int
    ) -> tuple[Completed, list[Step]]:
        """Run the steps; returns the completed sentences and what each step chose."""
        device, batch_size = words.device, words.numel()
        rules, check_period = self.word_rules(), self.steps_between_checks(device)
        beams = self._first_beams(batch_size, device, rules)
        completed = Completed.none(batch_size, self.beam_size, device)
        steps: list[Step] = []
        for time in range(self.max_seq_len):
            logits, state = model.step(words, state)
            width = beams.scores.size(1)
            beams, step = self._advance(beams, logits, state.get("attention"), rules)
            steps.append(step)
            ended = step.words == self.eos_token_id
            cut_off = time + 1 == self.max_seq_len
            scores = beams.scores if cut_off else beams.scores.where(ended, float("-inf"))
            completed = completed.with_more(beams.images, self._divided(scores, time + 1), time)
            if cut_off:
                break
            # Completed sentences are not continued.
            beams.scores = beams.scores.masked_fill(ended, float("-inf"))
            beams.finished = torch.zeros_like(ended)
            words = step.words
            first_rows = torch.arange(0, len(words) * width, width, device=device)
            rows = step.parents + first_rows.unsqueeze(1)
            if (time + 1) % check_period == 0:
                undone = self._undone(beams, completed, out_size)
                if not undone.numel():
                    break
                if undone.numel() <= (1 - SHARE_WORTH_DROPPING) * len(words):
                    beams, words, rows = beams.select(undone), words[undone], rows[undone]
                    state = {**state, "memory": reorder(state["memory"], undone)}
            state = {**state, "rows": reorder(state["rows"], rows.flatten())}
            words = words.flatten()
        return completed, steps

    def _undone(self, beams: Beams, completed: Completed, out_size: int) -> Tensor:
        """(k,) int64 positions of the images whose result may still change."""
        # A sum of log-probabilities never rises, and no sentence is longer than the longest.
        hoped = self._divided(beams.scores.amax(dim=1), self.max_seq_len)
        reached = completed.scores[beams.images, out_size - 1]
        return (hoped > reached).nonzero().squeeze(1)

    def _divided(self, scores: Tensor, length: int) -> Tensor:
        if self.length_penalty <= 0:
            return scores
        return scores / ((5 + length) / 6) ** self.length_penalty

    def _sentences(self, completed: Completed, steps: list[Step], count: int) -> dict[str, Tensor]:
        """Follow the parents back from the end of every completed sentence."""
        times, ends = completed.times[:, :count], completed.slots[:, :count]
        slots = ends
        words, log_probs, attention = [], [], []
        for time in reversed(range(len(steps))):
            step = spread(steps[time], len(times))
            slots, beyond = torch.where(times == time, ends, slots), times < time
            words.append(step.words.gather(1, slots).masked_fill(beyond, 0))
            log_probs.append(step.log_probs.gather(1, slots).masked_fill(beyond, 0.0))
            slots = step.parents.gather(1, slots)
            if step.attention is not None:
                index = slots[:, :1, None].expand(-1, -1, step.attention.size(2))
                attention.append(step.attention.gather(1, index))
        result = {kfg.G_SENTS_IDS: self._stack(words), kfg.G_LOGP: self._stack(log_probs)}
        if attention:
            result["ATTENTION_MAPS"] = self._stack(attention)[:, 0]
        return result
