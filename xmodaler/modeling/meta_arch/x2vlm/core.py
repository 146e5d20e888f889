"""What all X²-VLM models share: towers, fusion, and texts that leave their padding out."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.checkpoint.x2vlm import start_decoder, translate_x2vlm
from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ...encoder.text_fusion_encoder import FusionMemory, TextFusionEncoder
from ...layers.masking import BERT_HIDDEN, additive, as_bool, compute_dtype
from ...layers.packing import Packing, pack_or_flatten, unpack_or_keep, worth_packing
from ..base_enc_dec import BaseEncoderDecoder
from ..batches import Batch


@dataclass(frozen=True)
class Texts:
    """States of a batch of texts.

    Attributes:
        states: (R, T, D), or (count, D) with ``packing``.
        shown: Bool (R, T), which words are real.
        packing: The same as positions, or None where padding is computed too.
    """

    states: Tensor
    shown: Tensor
    packing: Packing | None

    @property
    def first(self) -> Tensor:
        """The states of the first words, (R, D)."""
        if self.packing is None:
            return self.states[:, 0]
        starts = self.shown.sum(1).cumsum(0).roll(1)
        starts[0] = 0
        return self.states.index_select(0, starts)

    def padded(self) -> Tensor:
        """The states (R, T, D), zeros where they were left out."""
        return unpack_or_keep(self.states, self.packing)

    def rows(self, index: Tensor) -> "Texts":
        """The texts of rows ``index``."""
        shown = self.shown.index_select(0, index)
        states = self.padded().index_select(0, index)
        packing = None if self.packing is None else Packing.of(shown)
        return Texts(pack_or_flatten(states, packing), shown, packing)

    def at(self, positions: Tensor) -> Tensor:
        """The states (k, D) of flat positions ``row * T + column``."""
        return self.padded().flatten(0, 1).index_select(0, positions)

    def mask(self) -> Tensor:
        """Additive (R, 1, 1, T)."""
        dtype = compute_dtype(self.states)
        return additive(self.shown[:, None, None, :], dtype, BERT_HIDDEN)


class X2VLMModel(BaseEncoderDecoder):
    """A vision tower, a text tower and fusion layers (Zeng et al., X²-VLM, TPAMI 2023).

    The picture is encoded and projected to keys and values once, however many texts are fused
    with it; texts are encoded once, however many pictures they are fused with.

    Args:
        **parts: As for :class:`BaseEncoderDecoder`; ``encoder`` is a
            :class:`~xmodaler.modeling.encoder.TextFusionEncoder`.
    """

    encoder: TextFusionEncoder

    @configurable
    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        if not isinstance(self.encoder, TextFusionEncoder):
            raise UserError(
                f"{type(self).__name__} needs MODEL.ENCODER: TextFusionEncoder, not "
                f"{type(self.encoder).__name__}"
            )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return super().from_config(cfg)

    @classmethod
    def add_config(cls, cfg: CfgNode, tmp_cfg: CfgNode) -> None:
        """Creates MODEL.X2VLM, and what the stages create."""
        cfg.MODEL.X2VLM = CfgNode(
            {
                "EMBED_DIM": 256,  # width of the common space of pictures and texts
                "TEMPERATURE": 0.07,
                "FIX_TEMPERATURE": False,
                "TIE_WORDS": True,  # the word head shares the matrix of the word embedding
                "IMAGE_BOXES": False,  # whole pictures learn their box (all of it) too
                "NUM_LABELS": 2,
                # A text model of the hub, a folder or a file: pre-training starts its text tower
                # from it, whatever MODEL.WEIGHTS holds. '': from MODEL.WEIGHTS
                "TEXT_WEIGHTS": "",
            }
        )
        super().add_config(cfg, tmp_cfg)

    def adapt_weights(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Weights of a file for this model: released names become ours, tables fit the picture.

        Args:
            state: Weights of a released checkpoint, or of one of this package, of any task.
        """
        tower = type(self.visual_embed.tower).__name__
        layers = len(self.encoder.text_layers)
        adapted = translate_x2vlm(state, self.state_dict(), layers, tower)
        decoder = getattr(self, "text_decoder", None)
        return adapted if decoder is None else start_decoder(adapted, len(decoder.layers))

    def get_extended_attention_mask(self, batched_inputs: Batch) -> Batch:
        """EXT_ATT_MASKS (B, 1, 1, N) and EXT_U_TOKENS_MASKS (R, 1, 1, T), where there are both."""
        produced: Batch = {}
        if kfg.ATT_FEATS in batched_inputs:
            feats, shown = batched_inputs[kfg.ATT_FEATS], batched_inputs[kfg.ATT_MASKS]
            dtype = compute_dtype(feats)
            produced[kfg.EXT_ATT_MASKS] = additive(shown[:, None, None, :], dtype)
        if kfg.U_TOKENS_IDS in batched_inputs:
            shown = shown_words(batched_inputs, kfg.U_TOKENS_IDS)
            dtype = compute_dtype(self.token_embed.embeddings.weight)
            masks = additive(shown[:, None, None, :], dtype, BERT_HIDDEN)
            produced[kfg.EXT_U_TOKENS_MASKS] = masks
        return produced

    # -- pieces of the models ---------------------------------------------------------------

    def see(self, batch: Batch) -> Batch:
        """What the vision tower makes of IMAGES: ATT_FEATS (B, N, D), and REGION_FEATS."""
        batch = dict(batch)
        batch.update(self.visual_embed(batch))
        self._check_visual(batch)
        return batch

    def read(self, tokens: Tensor, shown: Tensor) -> Texts:
        """The text tower on words (R, T) of which ``shown`` (R, T) are real."""
        embedded = self.token_embed.embed(tokens, torch.zeros_like(tokens))
        packing = worth_packing(shown)
        texts = Texts(pack_or_flatten(embedded, packing), shown, packing)
        states = self.encoder.text(texts.states, texts.mask(), packing)
        return Texts(states, shown, packing)

    def fuse(self, texts: Texts, memory: FusionMemory | None) -> Texts:
        """The fusion layers on the G texts of every picture of ``memory``."""
        states = self.encoder.fuse(texts.states, texts.mask(), memory, texts.packing)
        return Texts(states, texts.shown, texts.packing)

    def fused_pair(self, batch: Batch) -> Texts:
        """Texts U_TOKENS_IDS (R, T) fused with their pictures IMAGES (B, ...); R = B * G."""
        seen = self.see(batch)
        texts = self.read(batch[kfg.U_TOKENS_IDS], shown_words(batch, kfg.U_TOKENS_IDS))
        return self.fuse(texts, self.encoder.memory(seen[kfg.ATT_FEATS]))


def shown_words(batch: Batch, key: str, mask_key: str = kfg.TOKENS_MASKS) -> Tensor:
    """Bool (R, T), which words of a text are real.

    Raises:
        UserError: The text is missing, or its mask does not fit.
    """
    tokens = batch.get(key)
    if tokens is None:
        raise UserError(f"the batch has no {key}; give the words of every text (R, T)")
    if mask_key not in batch:
        return torch.ones_like(tokens, dtype=torch.bool)
    shown = as_bool(batch[mask_key])
    if shown.shape != tokens.shape:
        raise UserError(
            f"{mask_key} has shape {tuple(shown.shape)} but {key} has {tuple(tokens.shape)}; "
            "the two must agree"
        )
    return shown


def tie_words(model: BaseEncoderDecoder, head: nn.Module) -> None:
    """Let a word head share the matrix of the word embedding.

    Raises:
        UserError: Their shapes differ.
    """
    words = model.token_embed.embeddings.weight
    if head.decoder.weight.shape != words.shape:
        raise UserError(
            f"MODEL.X2VLM.TIE_WORDS: the word head is {tuple(head.decoder.weight.shape)} but the "
            f"word embedding {tuple(words.shape)}; MODEL.TOKEN_EMBED.DIM must be "
            "MODEL.BERT.HIDDEN_SIZE"
        )
    head.decoder.weight = words
