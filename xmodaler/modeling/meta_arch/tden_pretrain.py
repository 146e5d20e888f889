"""TDEN for pre-training."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.losses.scored_rows import G_SELECTED, U_SELECTED, V_SELECTED, SelectedRows

from ..layers.packing import Packing
from ..predictor import PREDICTOR_REGISTRY, build_predictor_with_name
from ..predictor.states import last_state
from ..stage_keys import U_PACKING
from .batches import Batch, without_internal
from .build import META_ARCH_REGISTRY
from .tden_encoded import TDENEncoded

SIMILARITY_HEAD = "MultiModalSimilarity"

WITH_SIMILARITY = "tden_pretrain_similarity"
"""Batch key: whether to compare all pictures and texts, too."""


@META_ARCH_REGISTRY.register()
class TDENPretrain(TDENEncoded):
    """Four tasks in one pass (Li et al., AAAI 2021, section 3.3).

    Matching of pictures and texts on what the encoder gives; masked words from the understanding
    layers, the next word from the generation layers, the classes of masked regions from the
    regions after the understanding layers. In training, logits are computed for the positions
    that have a target alone.

    Args:
        similarity_predictor: The head that compares pictures and texts.
        **parts: As for :class:`TDENEncoded`.
    """

    @configurable
    def __init__(self, *, similarity_predictor: nn.Module, **parts: Any) -> None:
        super().__init__(**parts)
        self.similarity_predictor = similarity_predictor

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        parts = super().from_config(cfg)
        return {**parts, "similarity_predictor": build_predictor_with_name(cfg, SIMILARITY_HEAD)}

    @classmethod
    def add_config(cls, cfg: CfgNode, tmp_cfg: CfgNode) -> None:
        """As for any model, and ``MODEL.MM_PREDICTOR``."""
        super().add_config(cfg, tmp_cfg)
        PREDICTOR_REGISTRY.get(SIMILARITY_HEAD).add_config(cfg)

    def _forward(self, batched_inputs: Batch) -> Batch:
        """The outputs of all heads.

        Args:
            batched_inputs: With ``tden_pretrain_similarity`` true, OUTPUT is produced too.

        Returns:
            OUTPUT as :class:`MultiModalSimilarity` gives it; U_LOGITS and G_LOGITS (R, T, V),
            V_LOGITS (B, N, K), or in training, of those that have targets in the batch, the
            selected rows.
        """
        batch = self._encode_both(batched_inputs)
        if batch.get(WITH_SIMILARITY, False):
            batch.update(self._compared(batch))
        batch.update(self.decoder(batch))
        heads = self._selected_words(batch) if self.training else None
        packed = heads is not None
        heads = heads if packed else {}
        self._padded(batch)
        if not packed:
            heads.update(self.predictor(batch))
        if self.v_predictor is not None:
            heads.update(self._regions(batch))
        return {**without_internal(batch), **heads}

    def _compared(self, batch: Batch) -> Batch:
        padded = dict(batch)
        self._padded(padded)
        return self.similarity_predictor(padded)

    def _selected_words(self, batch: Batch) -> Batch | None:
        """Logits of the words with a target, both texts in one product."""
        texts = [
            (key, batch[targets], last_state(batch[states]))
            for key, targets, states in (
                (U_SELECTED, kfg.U_TARGET_IDS, kfg.U_HIDDEN_STATES),
                (G_SELECTED, kfg.G_TARGET_IDS, kfg.G_HIDDEN_STATES),
            )
            if targets in batch and states in batch
        ]
        if len(texts) < 2:
            return None
        packing: Packing | None = batch.get(U_PACKING)
        rows, chosen = [], []
        for _, targets, states in texts:
            positions = (targets.flatten() >= 0).nonzero().squeeze(1)
            chosen.append(positions)
            rows.append(_states_at(positions, states, packing))
        hidden = torch.cat(rows)
        logits = self.predictor({kfg.G_HIDDEN_STATES: hidden})[kfg.G_LOGITS]
        produced = {}
        parts = logits.split([len(positions) for positions in chosen])
        for (key, targets, _), positions, part in zip(texts, chosen, parts, strict=True):
            produced[key] = SelectedRows.of(part, targets, positions)
        return produced

    def _regions(self, batch: Batch) -> Batch:
        """V_LOGITS, or in training the logits of the regions with a target."""
        labels = batch.get(kfg.V_TARGET_LABELS)
        if not self.training or labels is None or kfg.V_TARGET not in batch:
            return self.v_predictor(batch)
        feats, targets = last_state(batch[kfg.ATT_FEATS]), batch[kfg.V_TARGET]
        feats = feats[:, feats.shape[1] - targets.shape[1] :]  # without the mean region
        positions = (labels.flatten() > 0).nonzero().squeeze(1)
        rows = feats.flatten(0, 1).index_select(0, positions)
        logits = self.v_predictor({kfg.ATT_FEATS: rows})[kfg.V_LOGITS]
        return {V_SELECTED: SelectedRows.of(logits, targets, positions)}


def _states_at(positions: Tensor, states: Tensor, packing: Packing | None) -> Tensor:
    """Rows of (R, T, D), or of packed (count, D), at flat positions of the padded text."""
    if packing is None:
        return states.flatten(0, 1).index_select(0, positions)
    place = positions.new_full((packing.rows * packing.length,), -1)
    place[packing.index] = torch.arange(len(packing.index), device=place.device)
    return states.index_select(0, place[positions])
