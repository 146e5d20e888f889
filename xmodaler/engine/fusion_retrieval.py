"""Evaluation of models that find candidates by vectors and score the best again by fusion."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.datasets.collate import collate
from xmodaler.evaluation.retrieval import blockwise_ranks, top_candidates
from xmodaler.evaluation.retrieval_fusion import Candidates, fused_ranks
from xmodaler.modeling.meta_arch.x2vlm.text_pool import TextPool
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .evaluation import call_evaluator, eval_mode, on_all_ranks, outputs_of
from .precision import autocast

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

logger = logging.getLogger(__name__)
_TEXTS = 256
"""Texts that are encoded together."""


@dataclass
class Gallery:
    """The pictures of a split, or a language, and their texts.

    Attributes:
        ids: Of the I pictures.
        vectors: I arrays (E,) float32.
        texts: T arrays of word pieces.
        owners: T places of pictures.
        tokens: Of the pictures of this process by place, (N, D), on the CPU.
    """

    ids: dict[str, int] = field(default_factory=dict)
    vectors: list[Tensor] = field(default_factory=list)
    texts: list[np.ndarray] = field(default_factory=list)
    owners: list[int] = field(default_factory=list)
    tokens: dict[int, Tensor] = field(default_factory=dict)


def evaluate_by_fusion(
    cfg: "CfgNode", model: torch.nn.Module, loader: Any, evaluator: Any, epoch: int
) -> dict[str, Any]:
    """Rank in both directions; the metrics are on all ranks.

    Every process keeps the tokens of its own pictures, in the memory of the host, and scores the
    pairs of these; only vectors, word pieces and scores are exchanged.

    Args:
        cfg: The config; reads INFERENCE.RERANK and SOLVER.PRECISION.
        model: An :class:`~xmodaler.modeling.meta_arch.x2vlm.X2VLMRetrieval`, possibly inside a
            distributed wrapper.
        loader: Yields this rank's part of the data, with IDS ``[picture, [picture of each text]]``
            and, where the data have several languages, SPLITS.
        evaluator: A :class:`~xmodaler.evaluation.RetrievalEvaler`, or None.
        epoch: Number for the names of result files; -1 outside of training.
    """
    from xmodaler.evaluation.retrieval_evaler import RetrievalEvaler

    model = comm.unwrap_model(model)
    galleries = gather_galleries(encode_pictures(cfg, model, loader))
    ranks: dict[str, Any] = {}
    for name, gallery in galleries.items():
        ranks[name] = rank_gallery(cfg, model, gallery)
    evaluator = RetrievalEvaler(cfg) if evaluator is None else evaluator
    return on_all_ranks(lambda: call_evaluator(_OfRanks(evaluator), ranks, epoch))


class _OfRanks:
    def __init__(self, evaluator: Any) -> None:
        self.eval = evaluator.eval_ranks


def encode_pictures(cfg: "CfgNode", model: torch.nn.Module, loader: Any) -> dict[str, Gallery]:
    """This rank's part of the data by split."""
    keep = cfg.INFERENCE.RERANK > 0

    def encode(batch: dict[str, Any]) -> dict[str, Any]:
        vectors, tokens = model.encode_images(batch)
        return {**batch, kfg.IMAGE_VECTORS: vectors, kfg.ATT_FEATS: tokens if keep else None}

    galleries: dict[str, Gallery] = {}
    for outputs in outputs_of(cfg, model, loader, call=encode):
        rows = _texts_of(outputs)
        splits = outputs.get(kfg.SPLITS, [""] * len(outputs[kfg.IDS]))
        vectors = outputs[kfg.IMAGE_VECTORS].float().cpu()
        tokens = outputs[kfg.ATT_FEATS]
        tokens = None if tokens is None else tokens.cpu()
        for row, (identity, split) in enumerate(zip(outputs[kfg.IDS], splits, strict=True)):
            gallery = galleries.setdefault(split, Gallery())
            name, owners = _names_of(identity)
            texts = [next(rows) for _ in owners]
            if name in gallery.ids:
                continue
            place = gallery.ids[name] = len(gallery.ids)
            gallery.vectors.append(vectors[row])
            gallery.texts += texts
            gallery.owners += [place] * len(texts)
            if tokens is not None:
                gallery.tokens[place] = tokens[row]
    return galleries


def _names_of(identity: Any) -> tuple[str, list[str]]:
    if not isinstance(identity, list | tuple):
        return str(identity), [str(identity)]
    name, owners = str(identity[0]), [str(owner) for owner in identity[1]]
    if set(owners) != {name}:
        raise UserError(
            f"IDS of a picture is {identity!r}; the data set must give [picture, [the same picture "
            "for each of its texts]]"
        )
    return name, owners


def _texts_of(batch: dict[str, Any]) -> Iterator[np.ndarray]:
    tokens, shown = batch[kfg.U_TOKENS_IDS].cpu(), batch[kfg.TOKENS_MASKS].cpu()
    return (row[mask].numpy() for row, mask in zip(tokens, shown, strict=True))


def gather_galleries(local: dict[str, Gallery]) -> dict[str, Gallery]:
    """What all ranks have, on each of them, but for the tokens, which stay where they are.

    Pictures that an earlier rank has too are left out.

    Raises:
        UserError: There is nothing.
    """
    light = {
        name: Gallery(part.ids, part.vectors, part.texts, part.owners)
        for name, part in local.items()
    }
    merged: dict[str, Gallery] = {}
    for rank, galleries in enumerate(comm.all_gather(light)):
        for name, part in galleries.items():
            into = merged.setdefault(name, Gallery())
            own = local[name].tokens if rank == comm.get_rank() else {}
            _append(into, part, own)
    if not merged:
        raise UserError("there is no picture to retrieve: the evaluation data are empty")
    return merged


def _append(into: Gallery, part: Gallery, tokens: dict[int, Tensor]) -> None:
    places: dict[int, int] = {}
    for name, place in part.ids.items():
        if name in into.ids:
            continue
        places[place] = into.ids[name] = len(into.ids)
        into.vectors.append(part.vectors[place])
        if place in tokens:
            into.tokens[places[place]] = tokens[place]
    for text, owner in zip(part.texts, part.owners, strict=True):
        if owner in places:
            into.texts.append(text)
            into.owners.append(places[owner])


@torch.inference_mode()
def rank_gallery(cfg: "CfgNode", model: torch.nn.Module, gallery: Gallery) -> dict[str, Any]:
    """Ranks of a split.

    Returns:
        ``ranks``: those of texts and of pictures, on the main process, after fusion; ``vectors``:
        the same by vectors alone.
    """
    if not gallery.texts:
        raise UserError("the evaluation data have no text")
    top_k = cfg.INFERENCE.RERANK
    device = next(model.parameters()).device
    with eval_mode(model), autocast(cfg.SOLVER.PRECISION, device):
        text_vectors, pool = encode_texts(model, gallery.texts, keep=top_k > 0)
    images, owners = torch.stack(gallery.vectors).to(device), torch.tensor(gallery.owners)
    by_vectors = blockwise_ranks(images, text_vectors, owners)
    if top_k <= 0:
        return {"ranks": by_vectors}
    of_images = top_candidates(images, text_vectors, top_k)[1]
    of_texts = top_candidates(text_vectors, images, top_k)[1]
    pairs = Candidates.of(of_images, of_texts)
    mine = torch.tensor([int(image) in gallery.tokens for image in range(len(images))])
    own = mine[pairs.images].nonzero().squeeze(1)
    with eval_mode(model), autocast(cfg.SOLVER.PRECISION, device):
        found = model.score_pairs(gallery.tokens, pool, pairs.images[own], pairs.texts[own])
    scores = torch.zeros(len(pairs.images))
    for places, part in comm.all_gather((own, found)):
        scores[places] = part
    return {"ranks": fused_ranks(pairs, scores, owners, by_vectors), "vectors": by_vectors}


def encode_texts(
    model: torch.nn.Module, texts: Sequence[np.ndarray], keep: bool = True
) -> tuple[Tensor, TextPool | None]:
    """Vectors (T, E) of texts given as word pieces, and their states on the CPU if asked for."""
    vectors, parts = [], []
    for start in range(0, len(texts), _TEXTS):
        batch = collate([{kfg.U_TOKENS_IDS: text} for text in texts[start : start + _TEXTS]])
        found, states = model.encode_texts(model.preprocess_batch(batch))
        vectors.append(found.float())
        if keep:
            parts.append(TextPool.of(states, "cpu"))
    return torch.cat(vectors), TextPool.joined(parts) if keep else None
