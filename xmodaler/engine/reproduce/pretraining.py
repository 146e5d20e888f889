"""How well a pre-trained model guesses the words that were masked."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch

from xmodaler.checkpoint import rng_state, set_rng_state
from xmodaler.config import kfg
from xmodaler.datasets import build_dataset_mapper, build_xmodaler_valtest_loader, collate
from xmodaler.utils.env import seed_all_rng

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

__all__ = ["score_pretraining"]

METRIC = "masked words"


def score_pretraining(cfg: "CfgNode", model: torch.nn.Module) -> dict[str, Any]:
    """The share of masked words that a model guesses with the right picture and with a wrong one.

    Args:
        cfg: The config of pre-training; its pairs for validation are read.
        model: The model.

    Returns:
        ``scores`` and ``chance``: the share with each text's own picture, and with the picture of
        another text, which is what the words around the mask tell. There is no ``oracle``.
    """
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ITM_NEG_PROB = 0.0  # every text is about its picture
    cfg.DATALOADER.FEATS_FOLDER += "_val"
    mapper = build_dataset_mapper(cfg, cfg.DATASETS.TEST, "val")
    loader = build_xmodaler_valtest_loader(cfg, mapper, stage="test", collate_fn=collate)
    if hasattr(model, "sampling_pool"):
        model.sampling_pool = ["mlm"]
    training = model.training
    model.eval()
    state = rng_state()
    seed_all_rng(cfg.SEED)  # which words are masked
    with torch.no_grad():
        batches = [model.preprocess_batch(batch) for batch in loader]
        own = _share_right(model, batches)
        other = _share_right(model, map(_with_other_pictures, batches))
    set_rng_state(state)
    model.train(training)
    return {"scores": {METRIC: own}, "chance": {METRIC: other}, "oracle": {}}


def _share_right(model: torch.nn.Module, batches: Iterable[dict[str, Any]]) -> float:
    right = count = 0
    for batch in batches:
        outputs = model(batch)
        targets = outputs[kfg.U_TARGET_IDS]
        masked = targets > 0
        right += int((outputs[kfg.U_LOGITS].argmax(-1) == targets)[masked].sum())
        count += int(masked.sum())
    return right / max(count, 1)


def _with_other_pictures(batch: dict[str, Any]) -> dict[str, Any]:
    """Every text with the picture of the text five before it, which is one of another picture."""
    visual = (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS, "ATT_FEATS_WO_MASK")
    rolled = {key: batch[key].roll(5, dims=0) for key in visual if key in batch}
    return {**batch, **rolled}
