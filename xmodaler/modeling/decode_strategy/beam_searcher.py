"""Beam search."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

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
from xmodaler.modeling.decode_strategy.top_words import top_words
from xmodaler.modeling.decode_strategy.word_rules import WordRules
from xmodaler.utils.errors import UserError

#: Images that are done leave the batch when at least this share of it is done: rows are copied at
#: every step anyway, but what the model remembers of the images is copied for this alone.
SHARE_WORTH_DROPPING = 0.25


@dataclass
class Beams:
    """The hypotheses of A images that are still searched, K each, best first.

    Attributes:
        images: (A,) int64 positions of these images in the batch.
        scores: (A, K) sums of log-probabilities.
        finished: (A, K) bool, whether the end of sentence was chosen.
        history: (A, K, t) int64 words, kept only for rules that look at them.
    """

    images: Tensor
    scores: Tensor
    finished: Tensor
    history: Tensor | None

    def select(self, keep: Tensor) -> "Beams":
        """The beams of the images at positions ``keep``."""
        history = self.history[keep] if self.history is not None else None
        return Beams(self.images[keep], self.scores[keep], self.finished[keep], history)


@dataclass
class Step:
    """What one step chose for A images: (A, K) ``parents``, ``words`` and their ``log_probs``.

    ``attention`` is None or (A, k, N), the weights of the k parents with which they chose.
    """

    images: Tensor
    parents: Tensor
    words: Tensor
    log_probs: Tensor
    attention: Tensor | None


@DECODE_STRATEGY_REGISTRY.register()
class BeamSearcher(DecodeStrategy):
    """Keeps the K most probable sentences at every step.

    The score of a hypothesis is the sum of its words' log-probabilities. A finished hypothesis
    keeps its score and competes with one candidate, itself; it is continued with id 0. Batch key
    ``OUT_SIZE`` (int n, default 1) asks for the n best: ``G_SENTS_IDS`` and ``G_LOGP`` are then
    (B, n, T) instead of (B, T). Log-probabilities behind the end of a sentence are 0, so those of
    a row sum to its score; gradients flow through them.

    With ``length_penalty`` a > 0 the final order is by score / length^a, where the end of sentence
    counts as a word; which hypotheses survive a step is decided by the plain scores.

    An image is done when the n best of its beams are finished: a score never rises, so nothing
    can overtake them. With a length penalty all K beams have to be finished. Done images are
    dropped from the batch, and the search ends with the last one.
    """

    def _forward(self, batched_inputs: dict[str, Any], model: StepModel) -> dict[str, Any]:
        out_size, state, words = self._begin(batched_inputs, model)
        scores, steps = self._search(words, state, model, out_size)
        result = {**state.get("outputs", {}), **self._best(scores, steps, out_size)}
        return self._one_or_many(result, out_size)

    def _begin(self, batched_inputs: dict[str, Any], model: StepModel) -> tuple[int, State, Tensor]:
        """How many sentences are asked for, the state of the model, and the first words (B,)."""
        out_size = int(batched_inputs.get("OUT_SIZE", 1))
        if not 1 <= out_size <= self.beam_size:
            raise UserError(
                f"OUT_SIZE is {out_size}; a search with DECODE_STRATEGY.BEAM_SIZE "
                f"{self.beam_size} returns between 1 and {self.beam_size} sentences per image."
            )
        state = model.start(batched_inputs)
        return out_size, state, first_words(state, self.bos_token_id)

    def _one_or_many(self, result: dict[str, Any], out_size: int) -> dict[str, Any]:
        """The same, its sentences (B, T) where one per image was asked for."""
        if out_size == 1:
            for key in (kfg.G_SENTS_IDS, kfg.G_LOGP):
                result[key] = result[key].squeeze(1)
        return result

    def _first_beams(self, images: int, device: torch.device, rules: WordRules | None) -> Beams:
        """One empty hypothesis per image."""
        return Beams(
            images=torch.arange(images, device=device),
            scores=torch.zeros(images, 1, device=device),
            finished=torch.zeros(images, 1, dtype=torch.bool, device=device),
            history=None if rules is None else torch.zeros(images, 1, 0, device=device).long(),
        )

    def _search(
        self, words: Tensor, state: State, model: StepModel, out_size: int
    ) -> tuple[Tensor, list[Step]]:
        """Run the steps; returns final (B, K) scores and what each step chose."""
        device, batch_size = words.device, words.numel()
        rules = self.word_rules()
        deciding = self.beam_size if self.length_penalty else out_size
        check_period = self.steps_between_checks(device)
        beams = self._first_beams(batch_size, device, rules)
        final_scores: Tensor | None = None
        steps: list[Step] = []
        for time in range(self.max_seq_len):
            logits, state = model.step(words, state)
            width = beams.scores.size(1)
            beams, step = self._advance(beams, logits, state.get("attention"), rules)
            steps.append(step)
            if final_scores is None:
                final_scores = torch.zeros_like(beams.scores)
            final_scores = final_scores.index_copy(0, beams.images, beams.scores)
            if time + 1 == self.max_seq_len:
                break
            words = step.words
            first_rows = torch.arange(0, len(words) * width, width, device=device)
            rows = step.parents + first_rows.unsqueeze(1)
            if (time + 1) % check_period == 0:
                undone = (~beams.finished[:, :deciding].all(1)).nonzero().squeeze(1)
                if not undone.numel():
                    break
                if undone.numel() <= (1 - SHARE_WORTH_DROPPING) * len(words):
                    beams, words, rows = beams.select(undone), words[undone], rows[undone]
                    state = {**state, "memory": reorder(state["memory"], undone)}
            state = {**state, "rows": reorder(state["rows"], rows.flatten())}
            words = words.flatten()
        return final_scores, steps

    def _advance(
        self, beams: Beams, logits: Tensor, attention: Tensor | None, rules: WordRules | None
    ) -> tuple[Beams, Step]:
        """Choose the K best among the continuations of every beam.

        Args:
            beams: Hypotheses of A images, k each.
            logits: (A * k, V).
            attention: None or (A * k, N).
            rules: Rules that forbid words, if any.
        """
        num_images, width = beams.scores.shape
        log_probs = log_softmax(logits)
        if rules is not None:
            log_probs = rules(log_probs, beams.history.flatten(0, 1))
        # The K best of all continue K rows at most, so K words of a row are enough.
        branching = min(self.beam_size, log_probs.size(1))
        log_probs, words = top_words(log_probs, branching)
        finished = beams.finished.unsqueeze(-1)
        log_probs = log_probs.view(num_images, width, branching).masked_fill(finished, 0.0)
        words = words.view(num_images, width, branching).masked_fill(finished, 0)
        candidates = beams.scores.unsqueeze(-1) + log_probs.detach()
        candidates[..., 1:] = candidates[..., 1:].masked_fill(finished, float("-inf"))

        # Fewer words than beams: the slots left over hold no sentence until there are enough.
        missing = (0, max(0, self.beam_size - width * branching))
        scores, choice = pad(candidates.flatten(1), missing, value=float("-inf")).topk(
            self.beam_size, dim=1
        )
        parents = (choice // branching).clamp(max=width - 1)
        words = pad(words.flatten(1), missing).gather(1, choice)
        log_probs = pad(log_probs.flatten(1), missing, value=float("-inf")).gather(1, choice)
        finished = beams.finished.gather(1, parents) | (words == self.eos_token_id)
        history = beams.history
        if history is not None:
            index = parents.unsqueeze(-1).expand(-1, -1, history.size(2))
            history = torch.cat([history.gather(1, index), words.unsqueeze(-1)], dim=2)
        if attention is not None:
            attention = attention.view(num_images, width, -1)
        return (
            Beams(beams.images, scores, finished | scores.isneginf(), history),
            Step(beams.images, parents, words, log_probs, attention),
        )

    def _best(self, scores: Tensor, steps: list[Step], out_size: int) -> dict[str, Tensor]:
        """Follow the parents back from the last step and return the best hypotheses."""
        batch_size = scores.size(0)
        slots = torch.arange(self.beam_size, device=scores.device).expand(batch_size, -1)
        if not self.length_penalty:
            slots = slots[:, :out_size]
        words, log_probs, attention = [], [], []
        for step in reversed(steps):
            step = spread(step, batch_size)
            words.append(step.words.gather(1, slots))
            log_probs.append(step.log_probs.gather(1, slots))
            slots = step.parents.gather(1, slots)
            if step.attention is not None:
                index = slots.unsqueeze(-1).expand(-1, -1, step.attention.size(2))
                attention.append(step.attention.gather(1, index))
        ids = self._stack(words)
        result = {kfg.G_SENTS_IDS: ids, kfg.G_LOGP: self._stack(log_probs)}
        if attention:
            result["ATTENTION_MAPS"] = self._stack(attention)
        if self.length_penalty:
            ranking = self._penalised(scores, ids).topk(out_size, dim=1).indices
            rows = torch.arange(batch_size, device=ids.device).unsqueeze(1)
            result = {key: value[rows, ranking] for key, value in result.items()}
        if attention:
            result["ATTENTION_MAPS"] = result["ATTENTION_MAPS"][:, 0]
        return result

    def _stack(self, steps: list[Tensor]) -> Tensor:
        """(B, n, T, ...) from the steps, last first, with zeros for steps not taken."""
        missing = self.max_seq_len - len(steps)
        return torch.stack(steps[::-1] + [torch.zeros_like(steps[0])] * missing, dim=2)

    def _penalised(self, scores: Tensor, ids: Tensor) -> Tensor:
        ends = ids == self.eos_token_id
        lengths = ids.size(-1) - (ends.cumsum(-1) - ends.long() > 0).sum(-1)
        return scores / lengths.to(scores.dtype) ** self.length_penalty


def spread(step: Step, batch_size: int) -> Step:
    """The step for all B images; those no longer searched keep their beams and add nothing."""
    if len(step.images) == batch_size:
        return step
    num_beams = step.words.size(1)

    def fill(values: Tensor, default: Tensor) -> Tensor:
        return default.expand(batch_size, *values.shape[1:]).index_copy(0, step.images, values)

    attention = step.attention
    if attention is not None:
        attention = fill(attention, attention.new_zeros(1, 1, 1))
    return Step(
        images=torch.arange(batch_size, device=step.images.device),
        parents=fill(step.parents, torch.arange(num_beams, device=step.images.device)),
        words=fill(step.words, step.words.new_zeros(1)),
        log_probs=fill(step.log_probs, step.log_probs.new_zeros(1)),
        attention=attention,
    )
