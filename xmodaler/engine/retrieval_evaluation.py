"""Evaluation of models that give pictures and texts vectors of their own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.evaluation.retrieval import blockwise_ranks, metrics_of_ranks
from xmodaler.evaluation.retrieval_evaler import RetrievalEvaler
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError

from .evaluation import call_evaluator, on_all_ranks, outputs_of
from .fusion_retrieval import evaluate_by_fusion

if TYPE_CHECKING:
    from xmodaler.config import CfgNode


@dataclass
class Vectors:
    """Encoded pictures and texts.

    Attributes:
        images: (I, P) float32.
        texts: (T, P) float32.
        image_ids: Of the I pictures.
        text_image: (T,) int64, the picture that each text describes.
    """

    images: Tensor
    texts: Tensor
    image_ids: list[str]
    text_image: Tensor


def evaluate_retrieval(
    cfg: "CfgNode", model: torch.nn.Module, loader: Any, evaluator: Any, epoch: int
) -> dict[str, Any]:
    """Encode on every rank, rank the candidates on the main one; the metrics are on all.

    Models that score pairs by fusion score the best candidates again, see
    :func:`~.fusion_retrieval.evaluate_by_fusion`.

    Args:
        cfg: The config.
        model: The model, possibly inside a distributed wrapper; its OUTPUT is vectors of pictures
            (B, P) and of texts (R, P).
        loader: Yields this rank's part of the data, with IDS ``[image, [image of each text]]``.
        evaluator: Has ``eval(image_vectors, text_vectors, labels)``, with or without an epoch; the
            labels are 1 where text (row) and picture (column) belong together. None gives the
            metrics of :func:`~xmodaler.evaluation.retrieval.metrics_of_ranks`.
        epoch: Number for the names of result files; -1 outside of training.
    """
    if hasattr(comm.unwrap_model(model), "score_pairs"):
        return evaluate_by_fusion(cfg, model, loader, evaluator, epoch)
    encoded = gather_vectors(encode(cfg, comm.unwrap_model(model), loader))
    return on_all_ranks(lambda: _score(encoded, evaluator, epoch))


def encode(cfg: "CfgNode", model: torch.nn.Module, loader: Any) -> Vectors:
    """The vectors of this rank's part of the data; each picture once."""
    images, texts, ids, owners = [], [], [], []
    for outputs in outputs_of(cfg, model, loader):
        image_vectors, text_vectors = outputs[kfg.OUTPUT]
        images.append(image_vectors.float())
        texts.append(text_vectors.float())
        batch_ids, batch_owners = ids_of(outputs[kfg.IDS])
        if len(batch_ids) != len(image_vectors) or len(batch_owners) != len(text_vectors):
            raise UserError(
                f"a batch has {len(image_vectors)} pictures and {len(text_vectors)} texts, but IDS "
                f"names {len(batch_ids)} and {len(batch_owners)}; the data set must give IDS as "
                "[image id, [image id of each of its texts]]"
            )
        ids += batch_ids
        owners += batch_owners
    if not images:
        return Vectors(torch.empty(0, 0), torch.empty(0, 0), [], torch.empty(0, dtype=torch.int64))
    rows: dict[str, int] = {}
    for row, key in enumerate(ids):
        rows.setdefault(key, row)
    places = {key: place for place, key in enumerate(rows)}
    return Vectors(
        torch.cat(images)[list(rows.values())],
        torch.cat(texts),
        list(rows),
        torch.tensor([places[key] for key in owners], dtype=torch.int64),
    )


def ids_of(identities: Sequence[Any]) -> tuple[list[str], list[str]]:
    """Picture ids of the rows of a batch, and the picture id of each of its texts."""
    images, owners = [], []
    for identity in identities:
        paired = isinstance(identity, list | tuple)
        image, own = (identity[0], identity[1]) if paired else (identity, [identity])
        images.append(str(image))
        owners += [str(key) for key in own]
    return images, owners


def gather_vectors(local: Vectors) -> Vectors:
    """The vectors of all ranks on the main process, in rank order; others get their own back.

    Pictures that an earlier rank has encoded too, because a loader did not share the data out, are
    left out with their texts.
    """
    if comm.get_world_size() == 1:
        return local
    parts = comm.gather(
        Vectors(local.images.cpu(), local.texts.cpu(), local.image_ids, local.text_image)
    )
    if not parts:
        return local
    places: dict[str, int] = {}
    images, texts, owners = [], [], []
    for part in parts:
        new = [row for row, key in enumerate(part.image_ids) if key not in places]
        rows = torch.full((len(part.image_ids),), -1)
        for row in new:
            rows[row] = places[part.image_ids[row]] = len(places)
        kept = (rows[part.text_image] >= 0).nonzero().squeeze(1)
        if new:
            images.append(part.images[new])
            texts.append(part.texts[kept])
            owners.append(rows[part.text_image][kept])
    device = local.images.device
    return Vectors(
        torch.cat(images).to(device), torch.cat(texts).to(device), list(places), torch.cat(owners)
    )


def _score(encoded: Vectors, evaluator: Any, epoch: int) -> Any:
    if not encoded.image_ids:
        raise UserError("there is no picture to retrieve: the evaluation data are empty")
    vectors, index = (encoded.images, encoded.texts), encoded.text_image
    if evaluator is None:
        return metrics_of_ranks(*blockwise_ranks(*vectors, index))
    if not isinstance(evaluator, RetrievalEvaler):
        # The documented form; ours takes indices, which do not grow with texts times pictures.
        labels = torch.zeros(len(index), len(encoded.image_ids))
        index = labels.scatter(1, index[:, None], 1.0).numpy()
    return call_evaluator(evaluator, vectors[0], epoch, vectors[1], index)
