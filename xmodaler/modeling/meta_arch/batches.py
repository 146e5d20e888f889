"""What the meta-architectures do with batches."""

from typing import Any

from torch import Tensor, nn

from xmodaler.config import kfg
from xmodaler.functional import trees
from xmodaler.losses import SCORED_ROWS, ScoredRows

from ..layers.grouping import queries_per_image, repeat_rows
from ..stage_keys import ATT_PACKING, INTERNAL

Batch = dict[str, Any]


def without_internal(batch: Batch) -> Batch:
    """The batch without what stages tell each other."""
    return {key: value for key, value in batch.items() if key not in INTERNAL}


def placed_logits(logits: Tensor, positions: Tensor, batch: Batch, scored: bool) -> Batch:
    """Logits of some positions among zeros.

    Args:
        logits: (k, V).
        positions: (k,) int64 on the CPU, ``row * L + column``.
        batch: Holds G_TOKENS_IDS (R, L).
        scored: Whether these are exactly the positions with a target.

    Returns:
        G_LOGITS (R, L, V), and the scored rows for losses.
    """
    shape = batch[kfg.G_TOKENS_IDS].shape
    positions = positions.to(logits.device)
    whole = logits.new_zeros(shape.numel(), logits.shape[-1])
    whole = whole.index_copy_(0, positions, logits).unflatten(0, shape)
    if not scored:
        return {kfg.G_LOGITS: whole}
    targets = batch[kfg.G_TARGET_IDS]
    rows = ScoredRows(whole, targets, logits, targets.flatten().index_select(0, positions))
    return {kfg.G_LOGITS: whole, SCORED_ROWS: rows}


def row_keys(decoder: nn.Module) -> tuple[str, ...]:
    """Keys of a decoder's state, one row per hypothesis."""
    keys = (kfg.G_HIDDEN_STATES, kfg.G_CELL_STATES, kfg.HISTORY_STATES)
    return (*getattr(decoder, "row_keys", keys), kfg.ENC_HISTORY_STATES)


def per_image(batch: Batch, images: int) -> Batch:
    """What later steps may need: trees whose tensors all have one row per image, and flags."""
    spent = (kfg.IMAGES, kfg.IDS, kfg.G_TOKENS_IDS, kfg.G_TARGET_IDS, kfg.TOKENS_MASKS, ATT_PACKING)
    return {
        key: value
        for key, value in batch.items()
        if key not in spent
        and all(x.dim() > 0 and x.shape[0] == images for x in trees.tensors(value))
    }


def repeat_images(batch: Batch, rows: int) -> None:
    """Give every query its own copy of the per-image tensors, for decoders that do not fold."""
    images = batch[kfg.ATT_FEATS].shape[0]
    if queries_per_image(rows, images) == 1:
        return
    per_image = (
        kfg.ATT_FEATS,
        kfg.ATT_MASKS,
        kfg.EXT_ATT_MASKS,
        kfg.GLOBAL_FEATS,
        kfg.P_ATT_FEATS,
        kfg.ATTRIBUTE,
        kfg.G_TOKENS_TYPE,
    )
    for key in per_image:
        if key in batch:
            batch[key] = trees.map_tensors(
                lambda x: repeat_rows(x, rows) if x.shape[0] == images else x, batch[key]
            )
