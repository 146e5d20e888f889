"""The encoder of COS-Net."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from ..layers.bert import BertGenerationLayer
from ..layers.masking import additive, as_bool, compute_dtype
from .build import ENCODER_REGISTRY
from .gtransformer_encoder import GTransformerEncoder


@ENCODER_REGISTRY.register()
class COSNetEncoder(GTransformerEncoder):
    """A grid encoder, and a comprehender and ranker of semantic words (Li et al., CVPR 2022).

    The words that a retrieval model proposes, and S learned slots for what it missed, attend to
    each other and to the grid (the semantic comprehender). A head then says of each which class it
    is, class C meaning irrelevant. Last, every word o takes a place in the sentence: with P one
    vector per place, ``o + softmax(o P^T) P`` (the semantic ranker).

    Args:
        hidden_size: Width D.
        num_hidden_layers: Number of layers over the grid.
        bert_layers: The layers over the grid.
        semantic_layers: Layers over the words, with cross-attention to the grid.
        num_classes: C, number of semantic classes.
        num_slots: S.
        num_positions: Places that words are ranked by.
        semantic_dropout: Dropout on embedded words, on slots and before the head.
    """

    @configurable
    def __init__(
        self,
        *,
        hidden_size: int,
        num_hidden_layers: int,
        bert_layers: nn.ModuleList,
        semantic_layers: nn.ModuleList,
        num_classes: int,
        num_slots: int,
        num_positions: int,
        semantic_dropout: float = 0.1,
    ) -> None:
        super().__init__(
            hidden_size=hidden_size, num_hidden_layers=num_hidden_layers, bert_layers=bert_layers
        )
        self.decoder_enc_layers = semantic_layers
        self.semantics_pred = nn.Sequential(
            nn.Dropout(semantic_dropout), nn.Linear(hidden_size, num_classes + 1)
        )
        self.embeddings = nn.Sequential(
            nn.Embedding(num_classes, hidden_size),
            nn.LayerNorm(hidden_size),
            nn.Dropout(semantic_dropout),
        )
        self.slot_embeddings = nn.Sequential(
            nn.Linear(hidden_size, hidden_size),
            nn.LayerNorm(hidden_size),
            nn.Dropout(semantic_dropout),
        )
        self.slot = nn.Parameter(torch.empty(1, num_slots, hidden_size))
        self.position = nn.Parameter(torch.empty(num_positions, hidden_size))
        nn.init.xavier_uniform_(self.slot)
        nn.init.xavier_uniform_(self.position)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.COSNET
        layers = range(node.NUM_SEMCOMPHDER_LAYERS)
        return {
            **super().from_config(cfg),
            "semantic_layers": nn.ModuleList(BertGenerationLayer(cfg) for _ in layers),
            "num_classes": node.NUM_CLASSES,
            "num_slots": node.SLOT_SIZE,
            "num_positions": node.MAX_POS,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.COSNET."""
        super().add_config(cfg)
        cfg.MODEL.COSNET.NUM_SEMCOMPHDER_LAYERS = 3
        cfg.MODEL.COSNET.SLOT_SIZE = 6
        cfg.MODEL.COSNET.MAX_POS = 26
        cfg.MODEL.COSNET.FILTER_WEIGHT = 1.0
        cfg.MODEL.COSNET.RECONSTRUCT_WEIGHT = 0.1

    def forward(self, batched_inputs: dict[str, Any], mode: str | None = None) -> dict[str, Tensor]:
        """The encoded grid and what is made of its semantic words, in mode 'v'.

        SEMANTICS_IDS and SEMANTICS_MASK are (Bs, M), one row per image or one per caption.

        Returns:
            ATT_FEATS (B, N + 1, D); SEMANTICS_PRED (Bs, S + M, C + 1), SEMANTICS_POS_PRED
            (Bs, S + M, places), SEMANTICS_FEATS (Bs, S + M, D), and EXT_SEMANTICS_MASKS
            (Bs, 1, 1, S + M).
        """
        produced = super().forward(batched_inputs, mode)
        if not produced:
            return {}
        x, v_mask = produced[kfg.ATT_FEATS], batched_inputs[kfg.EXT_ATT_MASKS]
        words, mask = self._embed(batched_inputs)
        for layer in self.decoder_enc_layers:
            words = layer(words, x, mask, v_mask)
        ranks = words @ self.position.t()
        return {
            **produced,
            kfg.SEMANTICS_PRED: self.semantics_pred(words),
            kfg.SEMANTICS_POS_PRED: ranks,
            kfg.SEMANTICS_FEATS: words + torch.softmax(ranks, dim=-1) @ self.position,
            kfg.EXT_SEMANTICS_MASKS: mask,
        }

    def _embed(self, batched_inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Slots and words (Bs, S + M, D), and their additive mask (Bs, 1, 1, S + M)."""
        ids = batched_inputs.get(kfg.SEMANTICS_IDS)
        if ids is None:
            raise UserError(
                f"{kfg.SEMANTICS_IDS} is missing from the batch; COSNetEncoder needs the semantic "
                "words of every image, as MSCoCoCOSNetDataset reads them"
            )
        words = self.embeddings(ids)
        visible = batched_inputs.get(kfg.SEMANTICS_MASK)
        visible = torch.ones_like(ids, dtype=torch.bool) if visible is None else as_bool(visible)
        slots = self.slot_embeddings(self.slot.expand(ids.shape[0], -1, -1))
        visible = torch.cat([visible.new_ones(slots.shape[:2]), visible], dim=1)
        mask = additive(visible[:, None, None], compute_dtype(words))
        return torch.cat([slots, words.to(slots.dtype)], dim=1), mask
