"""Retrieval of pictures, videos and texts."""

import torch
from torch import Tensor

from xmodaler.config import kfg

from ...encoder.text_fusion_encoder import FusionMemory
from ..batches import Batch, without_internal
from ..build import META_ARCH_REGISTRY
from .core import Texts, shown_words
from .pretrain import MatchingModel

UNSCORED = -100.0
"""Score of the candidates that are not among the best of the vectors."""


@META_ARCH_REGISTRY.register()
class X2VLMRetrieval(MatchingModel):
    """Finds candidates by vectors and scores the best again by fusion (section 4.2)."""

    def _forward(self, batched_inputs: Batch) -> Batch:
        """In training what the losses read; otherwise OUTPUT, the vectors of both sides.

        Args:
            batched_inputs: IMAGES (B, 3, H, W) or videos, U_TOKENS_IDS (R, T) with TOKENS_MASKS;
                in training R = B, and PAIR_IDS (B,) are equal where pairs belong together.
        """
        seen = self.see(batched_inputs)
        tokens = seen[kfg.ATT_FEATS]
        texts = self.read(
            batched_inputs[kfg.U_TOKENS_IDS], shown_words(batched_inputs, kfg.U_TOKENS_IDS)
        )
        vectors = self.vectors(tokens[:, 0], texts.first)
        if len(tokens) == len(texts.shown):
            memory = self.encoder.memory(tokens)
            vectors.update(self.matched(batched_inputs, vectors, texts, memory))
        if not self.training:
            vectors[kfg.OUTPUT] = [vectors[kfg.IMAGE_VECTORS], vectors[kfg.TEXT_VECTORS]]
        return without_internal({**batched_inputs, **vectors})

    @torch.no_grad()
    def encode_images(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Unit vectors (B, E) of IMAGES, and their tokens (B, N, D) for :meth:`match`."""
        tokens = self.see(batch)[kfg.ATT_FEATS]
        return self.contrast.images(tokens[:, 0]), tokens

    @torch.no_grad()
    def encode_texts(self, batch: Batch) -> tuple[Tensor, Texts]:
        """Unit vectors (R, E) of U_TOKENS_IDS, and their states for :meth:`match`."""
        texts = self.read(batch[kfg.U_TOKENS_IDS], shown_words(batch, kfg.U_TOKENS_IDS))
        return self.contrast.texts(texts.first), texts

    @torch.no_grad()
    def match(self, texts: Texts, memory: FusionMemory) -> Tensor:
        """How well texts (B * G) fit to the pictures of ``memory`` (B), scores (B * G,)."""
        return self.itm_head(self.fuse(texts, memory).first)[:, 1]

    @torch.no_grad()
    def rerank(self, products: Tensor, tokens: Tensor, texts: Texts, top_k: int) -> list[Tensor]:
        """Score the best candidates of every picture and of every text again.

        Args:
            products: (I, T) of the vectors of pictures and texts.
            tokens: (I, N, D) of the pictures.
            texts: The T texts.
            top_k: Candidates per picture and per text.

        Returns:
            Scores of texts for pictures (I, T) and of pictures for texts (T, I); candidates that
            are not among the best have :data:`UNSCORED`.
        """
        by_image = torch.full_like(products, UNSCORED)
        for row, tokens_of_one in enumerate(tokens.split(1)):
            index = products[row].topk(min(top_k, products.shape[1])).indices
            memory = self.encoder.memory(tokens_of_one)
            by_image[row, index] = self.match(texts.rows(index), memory).to(products.dtype)
        by_text = torch.full_like(products.T, UNSCORED)
        for row in range(products.shape[1]):
            index = products[:, row].topk(min(top_k, products.shape[0])).indices
            memory = self.encoder.memory(tokens.index_select(0, index))
            same = texts.rows(torch.full_like(index, row))
            by_text[row, index] = self.match(same, memory).to(products.dtype)
        return [by_image, by_text]
