"""Models with a Transformer decoder."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.caption_plan import CaptionPlan
from ..layers.masking import additive, compute_dtype
from ..layers.packing import worth_packing
from ..layers.scheduled_sampling import choose_positions, draw_words, sampling_probability
from ..predictor import build_v_predictor
from ..stage_keys import G_PACKING
from .base_enc_dec import BaseEncoderDecoder
from .batches import Batch, placed_logits, without_internal
from .build import META_ARCH_REGISTRY


@META_ARCH_REGISTRY.register()
class TransformerEncoderDecoder(BaseEncoderDecoder):
    """An encoder, and a decoder that reads all words at once under a causal mask.

    In training only what can reach a target is computed. With scheduled sampling, a first pass
    without gradients gives the model's own distribution at every position, each input word but
    the first is replaced with probability SS_PROB by a word drawn from it, and the second pass
    learns on the mixture (Mihaylova & Martins 2019).

    Args:
        v_predictor: A second head on the visual side, or None.
        **parts: As for :class:`BaseEncoderDecoder`.
    """

    feeds_own_words = True
    """Whether SS_PROB has an effect."""

    @configurable
    def __init__(self, *, v_predictor: nn.Module | None = None, **parts: Any) -> None:
        super().__init__(**parts)
        self.v_predictor = v_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = super().from_config(cfg)
        has_targets = cfg.MODEL.BERT.V_TARGET_SIZE > 0
        return {**parts, "v_predictor": build_v_predictor(cfg) if has_targets else None}

    def get_extended_attention_mask(self, batched_inputs: Batch) -> Batch:
        """EXT_ATT_MASKS (B, 1, 1, N) and, where there are words, EXT_G_TOKENS_MASKS (R, 1, L, L).

        A word sees itself and the earlier words that TOKENS_MASKS shows.
        """
        dtype = compute_dtype(batched_inputs[kfg.ATT_FEATS])
        visible = batched_inputs[kfg.ATT_MASKS][:, None, None, :]
        produced = {kfg.EXT_ATT_MASKS: additive(visible, dtype)}
        tokens = batched_inputs.get(kfg.G_TOKENS_IDS)
        if tokens is not None and tokens.dim() == 2:
            shown = batched_inputs.get(kfg.TOKENS_MASKS)
            produced[kfg.EXT_G_TOKENS_MASKS] = additive(causal(tokens, shown), dtype)
        return produced

    def _forward(self, batched_inputs: Batch) -> Batch:
        """G_LOGITS (R, L, V); in training, positions without a target stay zero."""
        batch, _ = self._encode(batched_inputs, skip_padding=self.training)
        batch.update(self.decoder.preprocess(batch))
        words = {kfg.G_TOKENS_IDS: batch[kfg.G_TOKENS_IDS]}
        samples = self.training and self.feeds_own_words
        probability = sampling_probability(batch, samples)
        # Compiled code wants the same shapes in every batch.
        skips = self.training and not torch.compiler.is_compiling()
        plan = self._caption_plan(batch) if skips or probability > 0 else None
        if probability > 0:
            batch[kfg.G_TOKENS_IDS] = self._with_own_words(batch, plan, probability)
        if plan is None or plan.scored is None or not self._skips_positions:
            self._decode(batch)
            batch.update(self.predictor(batch))
        else:
            hidden, positions = self._decode_until(batch, plan)
            index = plan.scored.flatten()[positions].nonzero().squeeze(1)
            logits = self._predict(batch, hidden, index)
            batch.update(placed_logits(logits, positions[index], batch, scored=True))
        if self.v_predictor is not None:
            batch.update(self.v_predictor(batch))
        return {**without_internal(batch), **words}

    @property
    def _skips_positions(self) -> bool:
        """Whether decoder and predictor can leave out positions."""
        return getattr(self.decoder, "accepts_packing", False) and getattr(
            self.predictor, "position_wise", False
        )

    def _decode(self, batch: Batch) -> None:
        """Embed the words and run the decoder; updates ``batch``, which is the model's own."""
        batch.update(self.token_embed(batch))
        packing = batch.get(G_PACKING)
        if packing is not None:
            batch[kfg.G_TOKEN_EMBED] = packing.pack(batch[kfg.G_TOKEN_EMBED])
        if self.encoder is not None:
            batch.update(self.encoder(batch, mode="t"))
        batch.update(self.decoder(batch))

    def _decode_until(self, batch: Batch, plan: CaptionPlan) -> tuple[Tensor, Tensor]:
        """Hidden states of the positions that matter.

        Returns:
            (m, D), and on the CPU their flat positions ``row * L + column`` (m,) int64.
        """
        tokens = batch[kfg.G_TOKENS_IDS]
        rows, full = tokens.shape
        length = int(plan.lengths.max())
        part = dict(batch)
        part[kfg.G_TOKENS_IDS] = tokens[:, :length]
        part[kfg.EXT_G_TOKENS_MASKS] = batch[kfg.EXT_G_TOKENS_MASKS][..., :length, :length]
        if kfg.G_TOKENS_TYPE in batch:
            part[kfg.G_TOKENS_TYPE] = batch[kfg.G_TOKENS_TYPE][:, :length]
        columns = torch.arange(length)
        positions = (torch.arange(rows)[:, None] * full + columns).flatten()
        needed = columns < plan.lengths[:, None]
        packable = self._skips_positions and tokens.device.type == "cpu"
        packing = worth_packing(needed) if packable else None
        if packing is not None:
            part[G_PACKING], positions = packing, positions[packing.index]
        self._decode(part)
        hidden = part[kfg.G_HIDDEN_STATES]
        last = hidden[-1] if isinstance(hidden, list | tuple) else hidden
        return last.reshape(-1, last.shape[-1]), positions

    def _predict(self, batch: Batch, hidden: Tensor, index: Tensor) -> Tensor:
        """Logits (k, V) of rows ``index`` of ``hidden``."""
        states = [hidden.index_select(0, index.to(hidden.device))]
        return self.predictor({**batch, kfg.G_HIDDEN_STATES: states})[kfg.G_LOGITS]

    @torch.no_grad()
    def _with_own_words(self, batch: Batch, plan: CaptionPlan, probability: float) -> Tensor:
        """The input words (R, L), some replaced by draws from the model's own distribution."""
        tokens = batch[kfg.G_TOKENS_IDS]
        chosen = choose_positions(*tokens.shape, probability)
        chosen &= torch.arange(tokens.shape[1]) < plan.lengths[:, None]
        if not chosen.any():
            return tokens
        before = torch.zeros_like(chosen)
        before[:, :-1] = chosen[:, 1:]
        hidden, positions = self._decode_until(batch, plan)
        index = before.flatten()[positions].nonzero().squeeze(1)
        words = draw_words(self._predict(batch, hidden, index))
        # The word drawn after a position is the input of the next one.
        targets = (positions[index] + 1).to(tokens.device)
        return tokens.flatten().index_copy(0, targets, words).view_as(tokens)


def causal(tokens: Tensor, shown: Tensor | None) -> Tensor:
    """Bool (R, 1, L, L): the word of a row sees itself and what is shown of the words before.

    Args:
        tokens: (R, L).
        shown: Bool (R, L), or None for all.
    """
    length = tokens.shape[1]
    lower = torch.ones(length, length, dtype=torch.bool, device=tokens.device).tril()
    if shown is None:
        return lower.expand(tokens.shape[0], 1, length, length)
    if shown.shape != tokens.shape:
        raise UserError(
            f"{kfg.TOKENS_MASKS} has shape {tuple(shown.shape)} but {kfg.G_TOKENS_IDS} has "
            f"{tuple(tokens.shape)}; the two must agree"
        )
    return lower & shown[:, None, None, :]
