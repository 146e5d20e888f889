"""The frame of all encoder-decoder models."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional import trees
from xmodaler.utils.errors import UserError

from ..attention import add_attention_config
from ..decode_strategy import build_beam_searcher, build_greedy_decoder
from ..decoder import add_decoder_config, build_decoder
from ..embedding import add_embedding_config, build_token_embed, build_visual_embed
from ..encoder import add_encoder_config, build_encoder
from ..layers.caption_plan import CaptionPlan
from ..layers.few_rows import StepWeights, are_few, forget
from ..layers.grouping import queries_per_image
from ..layers.masking import as_bool
from ..layers.packing import worth_packing
from ..predictor import add_predictor_config, build_predictor
from ..predictor.states import last_state
from ..stage_keys import (
    ATT_PACKING,
    ATTENTION_WEIGHTS,
    CAPTION_PLAN,
    DECODER_CACHE,
    ENCODER_CACHE,
    STEP_WEIGHTS,
)
from .batches import Batch, per_image, repeat_images, row_keys

State = dict[str, Any]


class BaseEncoderDecoder(nn.Module, ABC):
    """Embeddings, encoder, decoder and predictor, wired.

    The visual side runs once per image, the text side once per caption or hypothesis: visual keys
    have B rows, text keys R = B * G rows, the G rows of an image adjacent.

    Args:
        vocab_size: Number of words V.
        max_seq_len: Greatest length of a generated sentence.
        token_embed: Embedding of words.
        visual_embed: Embedding of pictures or their features.
        encoder: Encoder, or None.
        decoder: Decoder, or None for models that do not generate.
        predictor: Head, or None.
        greedy_decoder: Strategy for ``use_beam_search=False``, or None.
        beam_searcher: Strategy for ``use_beam_search=True``, or None.
    """

    @configurable
    def __init__(
        self,
        *,
        vocab_size: int,
        max_seq_len: int,
        token_embed: nn.Module,
        visual_embed: nn.Module,
        encoder: nn.Module | None,
        decoder: nn.Module | None,
        predictor: nn.Module | None,
        greedy_decoder: nn.Module | None = None,
        beam_searcher: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.max_seq_len = max_seq_len
        self.token_embed = token_embed
        self.visual_embed = visual_embed
        self.encoder = encoder
        self.decoder = decoder
        self.predictor = predictor
        self.greedy_decoder = greedy_decoder
        self.beam_searcher = beam_searcher

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        # The order decides which random numbers initialise which weights.
        parts: dict[str, Any] = {
            "token_embed": build_token_embed(cfg),
            "visual_embed": build_visual_embed(cfg),
            "encoder": build_encoder(cfg),
            "decoder": build_decoder(cfg),
            "predictor": build_predictor(cfg),
        }
        generates = parts["decoder"] is not None and bool(cfg.DECODE_STRATEGY.NAME)
        parts["greedy_decoder"] = build_greedy_decoder(cfg) if generates else None
        parts["beam_searcher"] = build_beam_searcher(cfg) if generates else None
        return {
            "vocab_size": cfg.MODEL.VOCAB_SIZE,
            "max_seq_len": cfg.MODEL.MAX_SEQ_LEN,
            **parts,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode, tmp_cfg: CfgNode) -> None:
        """Let every chosen stage create its keys."""
        add_encoder_config(cfg, tmp_cfg)
        add_decoder_config(cfg, tmp_cfg)
        add_predictor_config(cfg, tmp_cfg)
        add_embedding_config(cfg, tmp_cfg)
        add_attention_config(cfg, tmp_cfg)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def forward(
        self,
        batched_inputs: Batch,
        use_beam_search: bool | None = None,
        output_sents: bool = False,
    ) -> Batch:
        """Score given sentences or generate new ones.

        Args:
            batched_inputs: A batch on the model's device; it is not changed.
            use_beam_search: None scores the sentences of the batch (teacher forcing); False
                decodes greedily or by sampling; True searches with beams.
            output_sents: Also return the words of generated sentences under OUTPUT.

        Returns:
            A new dict: the batch and what was produced, G_LOGITS (R, L, V) when scoring.
        """
        if use_beam_search is None:
            return self._forward(batched_inputs)
        if use_beam_search is False or self._strategy("beam_searcher").beam_size == 1:
            return self.greedy_decode(batched_inputs, output_sents)
        return self.decode_beam_search(batched_inputs, output_sents)

    def greedy_decode(self, batched_inputs: Batch, output_sents: bool = False) -> Batch:
        """Generate with the greedy decoder (which samples when DECODE_BY_SAMPLE is true)."""
        return self._strategy("greedy_decoder")(batched_inputs, output_sents, model=self)

    def decode_beam_search(self, batched_inputs: Batch, output_sents: bool = False) -> Batch:
        """Generate with beam search."""
        return self._strategy("beam_searcher")(batched_inputs, output_sents, model=self)

    def _strategy(self, name: str) -> nn.Module:
        strategy = getattr(self, name)
        if strategy is None:
            raise UserError(
                "this model cannot generate sentences: MODEL.DECODER or DECODE_STRATEGY.NAME is "
                "empty in its config"
            )
        return strategy

    def preprocess_batch(self, batched_inputs: list[Batch] | Batch) -> Batch:
        """A batch on the model's device.

        Args:
            batched_inputs: Samples as a dataset makes them, or a collated batch.

        Returns:
            A new dict whose tensors are on the model's device.
        """
        if isinstance(batched_inputs, list | tuple):
            from xmodaler.datasets.collate import collate

            batched_inputs = collate(list(batched_inputs))
        device = self.device
        moved = trees.map_tensors(lambda x: x.to(device, non_blocking=True), dict(batched_inputs))
        tokens = batched_inputs.get(kfg.G_TOKENS_IDS)
        if device.type != "cpu" and tokens is not None and tokens.device.type == "cpu":
            # Read here, where the words still are on the host, the device need not be waited for.
            plan = CaptionPlan.of(tokens, batched_inputs.get(kfg.G_TARGET_IDS))
            moved[CAPTION_PLAN] = (plan, moved[kfg.G_TOKENS_IDS], moved.get(kfg.G_TARGET_IDS))
        return moved

    def bind_or_init_weights(self) -> None:
        """Called once after weights were loaded; nothing to bind here."""

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a file for this model; an encoder may know those of other models.

        Args:
            state: Weights by their names in the file.
        """
        adapt = getattr(self.encoder, "adapt_weights", None)
        return state if adapt is None else adapt(state, self)

    @abstractmethod
    def get_extended_attention_mask(self, batched_inputs: Batch) -> Batch:
        """The additive twins of the bool masks, in the compute dtype."""

    @abstractmethod
    def _forward(self, batched_inputs: Batch) -> Batch:
        """Teacher forcing."""

    def start(self, batched_inputs: Batch) -> State:
        """Encode the images of a batch and make the state from which sentences grow.

        Args:
            batched_inputs: A batch; only its visual side is read.

        Returns:
            ``memory``: what belongs to the images, tensors with first dimension B;
            ``rows``: what belongs to each hypothesis, tensors with first dimension R = B;
            ``time``: 0; ``outputs``: what the encoder produced; ``weights``: copies of weights
            for the steps, or None.
        """
        batch, encoded = self._encode(batched_inputs, skip_padding=True)
        batch[kfg.ATT_FEATS] = last_state(batch[kfg.ATT_FEATS])
        prepared = self.decoder.preprocess(batch)
        if hasattr(self.encoder, "start_steps"):
            prepared.update(self.encoder.start_steps(batch))
        rows = {key: prepared.pop(key) for key in row_keys(self.decoder) if key in prepared}
        images = batch[kfg.ATT_FEATS].shape[0]
        types = batch.get(kfg.G_TOKENS_TYPE)
        if types is not None and types.shape[0] != images:
            # A training batch has types per caption; a generated one takes those of the first.
            batch[kfg.G_TOKENS_TYPE] = types[:: queries_per_image(types.shape[0], images)]
        batch.update(prepared)
        if hasattr(self.decoder, "prepare_steps"):
            batch.update(self.decoder.prepare_steps(batch))
        memory = per_image(batch, images)
        state = {"memory": memory, "rows": rows, "time": 0, "outputs": encoded}
        return {**state, "weights": self._step_weights(batch[kfg.ATT_FEATS])}

    def train(self, mode: bool = True) -> "BaseEncoderDecoder":
        """As for any module; copies of weights made for decoding are dropped."""
        if mode:
            forget(self)
        return super().train(mode)

    def _step_weights(self, feats: Tensor) -> StepWeights | None:
        """Copies of the weights of the steps, where they pay."""
        if self.training or not are_few(feats.shape[0], feats):
            return None
        parts = (self.encoder, self.decoder, self.predictor)
        owners = [part for part in parts if hasattr(part, "step_layers")]
        return StepWeights.kept(self, [each for part in owners for each in part.step_layers()])

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """Feed one word to every hypothesis.

        Args:
            tokens: (R,) int64; R is B, or B * G once the rows of the state were reordered so.
            state: What :meth:`start` or the last :meth:`step` returned; it is used up.

        Returns:
            Logits (R, V) of the next word, and the new state. With RETURN_ATTENTION in the batch
            the state also holds ``attention`` (R, N).
        """
        memory, rows = state["memory"], state["rows"]
        batch = {**memory, **rows, kfg.G_TOKENS_IDS: tokens, kfg.TIME_STEP: state["time"]}
        batch[STEP_WEIGHTS] = state["weights"]
        self._step(batch)
        logits = batch[kfg.G_LOGITS]
        new = {**state, "time": state["time"] + 1, "rows": {key: batch[key] for key in rows}}
        caches = {key: batch[key] for key in (DECODER_CACHE, ENCODER_CACHE) if key in memory}
        if caches:
            new["memory"] = {**memory, **caches}
        if ATTENTION_WEIGHTS in batch:
            new["attention"] = batch[ATTENTION_WEIGHTS]
        return logits.reshape(tokens.shape[0], -1).contiguous(), new

    def _step(self, batch: Batch) -> None:
        """One decoding step; updates ``batch``, which is the model's own."""
        if not getattr(self.decoder, "folds_queries", False):
            repeat_images(batch, batch[kfg.G_TOKENS_IDS].shape[0])
        batch.update(self.token_embed(batch))
        if self.encoder is not None:
            batch.update(self.encoder(batch, mode="t"))
        batch.update(self.decoder(batch))
        batch.update(self.predictor(batch))

    def _encode(self, batched_inputs: Batch, skip_padding: bool) -> tuple[Batch, Batch]:
        """Embed and encode the images once each.

        Args:
            batched_inputs: The caller's batch; not changed.
            skip_padding: Leave hidden positions out of the arithmetic where that pays; they then
                come out as zeros.

        Returns:
            The batch with what was produced, and what the encoder produced.
        """
        batch = dict(batched_inputs)
        for key in (kfg.ATT_MASKS, kfg.TOKENS_MASKS):
            if key in batch:
                batch[key] = as_bool(batch[key])
        packable = (self.visual_embed, self.encoder or self.visual_embed)
        accepted = all(getattr(part, "accepts_packing", False) for part in packable)
        if skip_padding and accepted and kfg.ATT_MASKS in batch:
            packing = worth_packing(batch[kfg.ATT_MASKS])
            if packing is not None:
                batch[ATT_PACKING] = packing
        batch.update(self.visual_embed(batch))
        self._check_visual(batch)
        batch.update(self.get_extended_attention_mask(batch))
        encoded = self.encoder(batch, mode="v") if self.encoder is not None else {}
        batch.update(encoded)
        return batch, encoded

    def _caption_plan(self, batch: Batch) -> CaptionPlan:
        """Which positions of G_TOKENS_IDS to compute: in training those with a target."""
        tokens, targets = batch[kfg.G_TOKENS_IDS], batch.get(kfg.G_TARGET_IDS)
        plan, *made_for = batch.get(CAPTION_PLAN, (None, None, None))
        if plan is None or made_for[0] is not tokens or made_for[1] is not targets:
            plan = CaptionPlan.of(tokens, targets)
        return plan if self.training else plan.without_targets()

    def _check_visual(self, batch: Batch) -> None:
        feats = batch.get(kfg.ATT_FEATS)
        if feats is None:
            raise UserError(
                f"the batch has no {kfg.ATT_FEATS}; give visual features, or pictures under "
                f"{kfg.IMAGES} with a visual embedding that reads pictures"
            )
        masks = batch.get(kfg.ATT_MASKS)
        if masks is None:
            batch[kfg.ATT_MASKS] = feats.new_ones(feats.shape[:2], dtype=torch.bool)
        elif masks.shape != feats.shape[:2]:
            raise UserError(
                f"{kfg.ATT_MASKS} has shape {tuple(masks.shape)} but {kfg.ATT_FEATS} has "
                f"{tuple(feats.shape)}; the first two dimensions must agree"
            )
