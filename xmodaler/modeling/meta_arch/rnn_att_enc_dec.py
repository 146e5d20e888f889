"""Models with a recurrent decoder."""

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.functional import trees

from ..layers.caption_plan import CaptionPlan, Feedback, Staircase
from ..layers.grouping import queries_per_image
from ..layers.masking import additive, compute_dtype
from ..layers.scheduled_sampling import choose_positions, draw_words, sampling_probability
from ..stage_keys import SPARSE_GRADIENT
from .base_enc_dec import BaseEncoderDecoder
from .batches import Batch, placed_logits, row_keys, without_internal
from .build import META_ARCH_REGISTRY


@META_ARCH_REGISTRY.register()
class RnnAttEncoderDecoder(BaseEncoderDecoder):
    """An encoder, and a decoder that reads one word at a time and attends to the image.

    A decoder that offers ``unroll`` (see :class:`UpDownDecoder`) computes all steps of given
    sentences in one call; any other is called step by step. In training, with scheduled sampling,
    each input word but the first is replaced with probability SS_PROB by a word drawn from the
    model's own distribution.
    """

    def get_extended_attention_mask(self, batched_inputs: Batch) -> Batch:
        """EXT_ATT_MASKS (B, N), added to attention scores."""
        dtype = compute_dtype(batched_inputs[kfg.ATT_FEATS])
        return {kfg.EXT_ATT_MASKS: additive(batched_inputs[kfg.ATT_MASKS], dtype)}

    def _forward(self, batched_inputs: Batch) -> Batch:
        """G_LOGITS (R, L, V), zero from the first step on whose input words are all 0.

        In training only positions with a target are computed; the others stay zero.
        """
        batch, _ = self._encode(batched_inputs, skip_padding=self.training)
        batch.update(self.decoder.preprocess(batch))
        run = self._caption_logits
        if torch.compiler.is_compiling():
            # Shapes change from step to step and batch to batch: compiling would never end.
            run = torch.compiler.disable(run)
        return {**without_internal(batch), **run(batch)}

    def _caption_logits(self, batch: Batch) -> Batch:
        plan = self._caption_plan(batch).until_stop()
        if hasattr(self.decoder, "unroll") and getattr(self.predictor, "position_wise", False):
            return self._unrolled(batch, plan)
        return {kfg.G_LOGITS: self._step_by_step(batch, plan)}

    def _unrolled(self, batch: Batch, plan: CaptionPlan) -> Batch:
        tokens = batch[kfg.G_TOKENS_IDS]
        stairs = plan.staircase(batch[kfg.ATT_FEATS].shape[0])
        length = len(stairs.steps)
        rows, steps = stairs.row_of_each(), stairs.step_of_each()
        read = {**batch, kfg.G_TOKENS_IDS: tokens[:, :length]}
        if kfg.G_TOKENS_TYPE in batch:
            read[kfg.G_TOKENS_TYPE] = batch[kfg.G_TOKENS_TYPE][:, :length]
        embedded = self.token_embed(read)[kfg.G_TOKEN_EMBED].flatten(0, 1)
        words = embedded.index_select(0, (rows * length + steps).to(tokens.device))
        hidden = self.decoder.unroll(words, stairs, batch, self._feedback(batch, stairs))
        positions = rows * tokens.shape[1] + steps
        if plan.scored is not None:
            kept = plan.scored[rows, steps].nonzero().squeeze(1)
            positions, hidden = positions[kept], hidden.index_select(0, kept.to(tokens.device))
        logits = self.predictor({**batch, kfg.G_HIDDEN_STATES: [hidden]})[kfg.G_LOGITS]
        return placed_logits(logits, positions, batch, scored=plan.scores_all_targets)

    def _feedback(self, batch: Batch, stairs: Staircase) -> Feedback | None:
        """What replaces input words by the model's own, or None without scheduled sampling."""
        probability = sampling_probability(batch, self.training)
        if probability <= 0:
            return None
        chosen = choose_positions(stairs.rows.numel(), len(stairs.steps), probability)

        def feedback(t: int, hidden: Tensor) -> tuple[Tensor, Tensor] | None:
            rows = stairs.rows_at(t)
            here = chosen[rows, t].nonzero().squeeze(1)
            if here.numel() == 0:
                return None
            here_on_device = here.to(hidden.device)
            with torch.no_grad():
                states = [hidden.index_select(0, here_on_device)]
                words = draw_words(
                    self.predictor({**batch, kfg.G_HIDDEN_STATES: states})[kfg.G_LOGITS]
                )
            # A dense gradient of the whole embedding at every step would cost more than the step.
            read = {kfg.G_TOKENS_IDS: words, kfg.TIME_STEP: t, SPARSE_GRADIENT: True}
            if kfg.G_TOKENS_TYPE in batch:
                read[kfg.G_TOKENS_TYPE] = batch[kfg.G_TOKENS_TYPE][rows[here].to(words.device)]
            return here_on_device, self.token_embed(read)[kfg.G_TOKEN_EMBED]

        return feedback

    def _step_by_step(self, batch: Batch, plan: CaptionPlan) -> Tensor:
        tokens = batch[kfg.G_TOKENS_IDS]
        images = torch.arange(batch[kfg.ATT_FEATS].shape[0], device=tokens.device)
        repeated = images.repeat_interleave(queries_per_image(tokens.shape[0], len(images)))
        state_keys = [key for key in row_keys(self.decoder) if key in batch]
        state = {key: trees.reorder(batch[key], repeated) for key in state_keys}
        probability = sampling_probability(batch, self.training)
        chosen = choose_positions(tokens.shape[0], plan.stop, probability).to(tokens.device)
        logits: list[Tensor] = []
        for t in range(plan.stop):
            words = tokens[:, t]
            if probability > 0 and t > 0:
                words = torch.where(chosen[:, t], draw_words(logits[-1].detach()), words)
            step = {**batch, **state, kfg.G_TOKENS_IDS: words, kfg.TIME_STEP: t}
            self._step(step)
            state = {key: step[key] for key in state_keys}
            logits.append(step[kfg.G_LOGITS])
        full = logits[0].new_zeros(*tokens.shape, logits[0].shape[-1])
        full[:, : plan.stop] = torch.stack(logits, 1)
        return full
