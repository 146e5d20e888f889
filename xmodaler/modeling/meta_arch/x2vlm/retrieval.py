"""Retrieval of pictures, videos and texts."""

from collections.abc import Mapping

import torch
from torch import Tensor

from xmodaler.config import kfg

from ...encoder.text_fusion_encoder import FusionMemory
from ..batches import Batch, without_internal
from ..build import META_ARCH_REGISTRY
from .core import Texts, shown_words
from .pretrain import MatchingModel
from .text_pool import TextPool

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
    def score_pairs(
        self,
        tokens: Tensor | Mapping[int, Tensor],
        texts: TextPool,
        images: Tensor,
        rows: Tensor,
        batch_size: int = 256,
    ) -> Tensor:
        """How well pairs of pictures and texts fit; each picture is projected once.

        Args:
            tokens: (N, D) of every picture that occurs, on any device.
            texts: The texts, on any device.
            images: (P,) int64 on the CPU, the picture of each pair, ascending.
            rows: (P,) int64 on the CPU, its text.
            batch_size: Pairs that are scored together.

        Returns:
            (P,) float32 on the CPU.
        """
        scores, start = torch.zeros(len(images)), 0
        for image, count in zip(*images.unique_consecutive(return_counts=True), strict=True):
            one = tokens[int(image)][None].to(self.device)
            memory, end = self.encoder.memory(one), start + int(count)
            for first in range(start, end, batch_size):
                part = slice(first, min(first + batch_size, end))
                found = self.match(texts.rows(rows[part], self.device), memory)
                scores[part] = found.float().cpu()
            start = end
        return scores

    @torch.no_grad()
    def rerank(self, products: Tensor, tokens: Tensor, texts: Texts, top_k: int) -> list[Tensor]:
        """Score the best candidates of every picture and of every text again.

        A pair that is among the best of both its picture and its text is scored once.

        Args:
            products: (I, T) of the vectors of pictures and texts.
            tokens: (I, N, D) of the pictures.
            texts: The T texts.
            top_k: Candidates per picture and per text.

        Returns:
            Scores of texts for pictures (I, T) and of pictures for texts (T, I); candidates that
            are not among the best have :data:`UNSCORED`.
        """
        best = []
        for side in (products, products.T):
            index = side.topk(min(top_k, side.shape[1])).indices
            best.append(torch.zeros_like(side, dtype=torch.bool).scatter_(1, index, True))
        images, rows = (best[0] | best[1].T).cpu().nonzero().unbind(1)
        found = self.score_pairs(tokens, TextPool.of(texts), images, rows).to(products)
        scores = torch.full_like(products, UNSCORED)
        scores[images.to(scores.device), rows.to(scores.device)] = found
        return [scores.where(best[0], UNSCORED), scores.T.where(best[1], UNSCORED)]
