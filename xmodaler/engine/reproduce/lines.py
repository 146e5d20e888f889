"""How well a model that was pre-trained on lines knows pictures that it has not seen."""

import itertools
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from xmodaler.checkpoint import rng_state, set_rng_state
from xmodaler.config import kfg
from xmodaler.datasets.mixed_loader import build_mixed_loader
from xmodaler.functional.func_regions import overlap_of_boxes
from xmodaler.losses.scored_rows import U_SELECTED
from xmodaler.utils.env import seed_all_rng

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

__all__ = ["score_lines"]

WORDS, MATCHES, BOXES = "masked words", "matches", "boxes"
_BATCHES = 12


def score_lines(cfg: "CfgNode", model: torch.nn.Module) -> dict[str, Any]:
    """What a model of :class:`~xmodaler.engine.X2VLMPretrainer` has learned.

    Args:
        cfg: The config of pre-training; lines of validation lie beside those of training.
        model: The model.

    Returns:
        ``scores`` and ``chance`` by metric: the share of masked words that it guesses, of texts
        whose picture it finds among those of the batch, and of boxes that it finds with an IoU of
        one half. Chance is what it reaches with pictures of other texts, or of matches a blind
        choice. There is no ``oracle``.
    """
    cfg = cfg.clone()
    cfg.defrost()
    for node in (cfg.DATALOADER.GROUPS.IMAGES, cfg.DATALOADER.GROUPS.REGIONS):
        node.ANNFILE = node.ANNFILE.replace("_train", "_val")
    for name in ("VIDEOS", "TEXTS", "PARALLEL_TEXTS"):
        cfg.DATALOADER.GROUPS[name].ANNFILE = ""
    training, state = model.training, rng_state()
    seed_all_rng(cfg.SEED)  # which words are masked, and where pictures are cropped
    model.eval()
    with torch.no_grad():
        batches = itertools.islice(iter(build_mixed_loader(cfg)), _BATCHES)
        ready = [model.preprocess_batch(batch) for batch in batches]
        scores = _shares(model, ready, 0)
        chance = _shares(model, ready, 5)
        sizes = [len(batch[kfg.GROUPS]["images"][kfg.IMAGES]) for batch in ready]
        chance[MATCHES] = len(sizes) / sum(sizes)
    set_rng_state(state)
    model.train(training)
    return {"scores": scores, "chance": chance, "oracle": {}}


def _shares(model: torch.nn.Module, batches: list[dict[str, Any]], roll: int) -> dict[str, float]:
    """All shares with the pictures of the texts ``roll`` rows before."""
    right: dict[str, list[torch.Tensor]] = defaultdict(list)
    for batch in batches:
        groups = {
            name: {**group, kfg.IMAGES: group[kfg.IMAGES].roll(roll, dims=0)}
            for name, group in batch[kfg.GROUPS].items()
        }
        outputs = model({**batch, kfg.GROUPS: groups})[kfg.GROUPS]
        if "images" in outputs:
            found = outputs["images"]
            words = found[U_SELECTED]
            right[WORDS].append(words.logits.argmax(1) == words.targets)
            products = found[kfg.TEXT_VECTORS] @ found[kfg.IMAGE_VECTORS].T
            own = torch.arange(len(products), device=products.device)
            right[MATCHES].append(products.argmax(1) == own)
        if "regions" in outputs:
            found = outputs["regions"]
            shown = found[kfg.IS_IMAGE] == 0
            boxes = (found[key][shown].tolist() for key in (kfg.OUTPUT_BBOX, kfg.TARGET_BBOX))
            overlaps = [
                overlap_of_boxes(*map(_from_corner, pair)) for pair in zip(*boxes, strict=True)
            ]
            right[BOXES].append(torch.tensor(overlaps) >= 0.5)
    return {name: float(torch.cat(values).float().mean()) for name, values in right.items()}


def _from_corner(box: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = box
    return x - width / 2, y - height / 2, width, height
