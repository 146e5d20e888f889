"""Evaluation of models that score a picture and a text together, pair by pair."""

import hashlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.datasets import bad_samples
from xmodaler.datasets.collate import PADDINGS, pad_tensors
from xmodaler.evaluation.retrieval import itm_eval
from xmodaler.modeling.stage_keys import SCORES_ONLY
from xmodaler.utils import comm
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .evaluation import eval_mode, on_all_ranks, with_progress
from .precision import autocast
from .retrieval_evaluation import ids_of

if TYPE_CHECKING:
    from xmodaler.config import CfgNode

logger = logging.getLogger(__name__)

FOLDER = "pair_scores"
"""Below OUTPUT_DIR: the scores of an evaluation that is under way."""

TEXT_KEYS = (kfg.U_TOKENS_IDS, kfg.U_TOKENS_TYPE, kfg.TOKENS_MASKS)
VISUAL_KEYS = (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS, kfg.GLOBAL_FEATS, kfg.IMAGES)


@dataclass
class Pool:
    """Pictures and texts to be paired, on the host.

    Attributes:
        images: Visual keys, in chunks of some pictures as the loader gave them.
        texts: Text keys, (T, longest).
        image_ids: Of the I pictures.
        text_image: (T,) int64, the picture that each text describes.
    """

    images: list[dict[str, Tensor]]
    texts: dict[str, Tensor]
    image_ids: list[str]
    text_image: Tensor


def evaluate_pairs(
    cfg: "CfgNode", model: torch.nn.Module, loader: Any, epoch: int
) -> dict[str, Any]:
    """Score every text with every picture, and rank.

    The texts are shared out among the ranks. What has been scored is kept in OUTPUT_DIR until all
    is: an evaluation that was killed goes on where it was, if weights and data are the same.

    Args:
        cfg: The config; DATALOADER.INF_BATCH_SIZE is the number of pairs scored at a time.
        model: The model, possibly inside a distributed wrapper; its U_LOGITS are (pairs, 1).
        loader: Yields all the data on every rank, with IDS ``[image, [image of each text]]``.
        epoch: Of the evaluation, for the log.

    Returns:
        As :func:`~xmodaler.evaluation.retrieval.itm_eval`, on every rank.
    """
    bare = comm.unwrap_model(model)
    pool = read_pool(cfg, loader)
    own = own_texts(pool)
    store = ScoreStore(_path(cfg, bare, pool), len(own), len(pool.image_ids))
    if store.done:
        logger.info("Epoch %d: %d scores were computed before.", epoch, store.done)
    score_pairs(cfg, bare, pool, own, store.scores)
    shards = comm.gather((own, np.array(store.scores)))
    metrics = on_all_ranks(lambda: itm_eval(_matrix(shards), pool.text_image))
    store.remove()
    return metrics


def read_pool(cfg: "CfgNode", loader: Any) -> Pool:
    """Read all pictures, each once, and all texts."""
    images: list[dict[str, Tensor]] = []
    texts: dict[str, list[Tensor]] = {}
    image_ids: list[str] = []
    owners: list[str] = []
    for batch in with_progress(cfg, loader):
        batch = bad_samples.check(batch)
        if batch is None:
            continue
        if not isinstance(batch, dict) or kfg.IDS not in batch:
            raise UserError(
                "single-stream retrieval is evaluated on pictures with all their texts; the data "
                "set must give IDS as [image id, [image id of each of its texts]]"
            )
        batch_ids, batch_owners = ids_of(batch[kfg.IDS])
        image_ids += batch_ids
        owners += batch_owners
        images.append({key: batch[key] for key in VISUAL_KEYS if key in batch})
        for key in TEXT_KEYS:
            if key in batch:
                texts.setdefault(key, []).extend(batch[key])
    places = {key: place for place, key in enumerate(image_ids)}
    if not texts or len(places) < len(image_ids):
        raise UserError(
            f"{len(image_ids)} pictures, {len(places)} of them different, with {len(owners)} texts "
            "cannot be ranked; the evaluation data need texts, and every picture once"
        )
    values = {key: PADDINGS[key].value if key in PADDINGS else False for key in texts}
    return Pool(
        images,
        {key: pad_tensors(texts[key], values[key]) for key in texts},
        image_ids,
        torch.tensor([places[key] for key in owners], dtype=torch.int64),
    )


def own_texts(pool: Pool) -> np.ndarray:
    """Indices of the texts of this rank, short ones first, so that little is padded."""
    order = _lengths(pool).argsort(stable=True).numpy()
    return order[comm.get_rank() :: comm.get_world_size()]


@torch.inference_mode()
def score_pairs(
    cfg: "CfgNode", model: torch.nn.Module, pool: Pool, own: np.ndarray, scores: np.ndarray
) -> None:
    """Fill in the scores that are NaN.

    Args:
        cfg: The config.
        model: The model.
        pool: What to pair.
        own: (t,) the texts of the rows.
        scores: (t, I) float32, changed in place block by block.
    """
    device = next(model.parameters()).device
    first = 0
    with eval_mode(model):
        for chunk in with_progress(cfg, pool.images):
            columns = slice(first, first + len(next(iter(chunk.values()))))
            first = columns.stop
            images = None
            for rows in _blocks(len(own), cfg.DATALOADER.INF_BATCH_SIZE // _width(columns)):
                if not np.isnan(scores[rows, columns]).any():
                    continue
                images = model.preprocess_batch(chunk) if images is None else images
                texts = model.preprocess_batch(_texts(pool, own[rows]))
                with autocast(cfg.SOLVER.PRECISION, device):
                    block = pair_scores(model, images, texts)
                scores[rows, columns] = block.cpu().numpy()


def pair_scores(
    model: torch.nn.Module, images: dict[str, Tensor], texts: dict[str, Tensor]
) -> Tensor:
    """The scores of every text with every picture.

    Args:
        model: Gives U_LOGITS (pairs, 1).
        images: Visual keys of b pictures, on the model's device.
        texts: Text keys of g texts, on the model's device.

    Returns:
        (g, b) float32.
    """
    number = len(next(iter(images.values())))
    pairs = {key: value.repeat(number, *[1] * (value.ndim - 1)) for key, value in texts.items()}
    logits = model({**images, **pairs, SCORES_ONLY: True})[kfg.U_LOGITS]
    return logits.float().reshape(number, -1).t()


class ScoreStore:
    """Scores in a file that outlives the process; NaN where there is none yet.

    Args:
        path: The file; '' keeps them in memory.
        rows: Texts.
        columns: Pictures.

    Attributes:
        scores: (rows, columns) float32.
        done: How many were in the file.
    """

    def __init__(self, path: str, rows: int, columns: int) -> None:
        self.path, shape = path, (rows, columns)
        self.scores = None
        if path and os.path.isfile(path):
            self.scores = _opened(path, shape)
        if self.scores is None:
            self.scores = np.full(shape, np.nan, dtype=np.float32)
            if path and rows:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                # Complete before it gets its name: a file of zeros would look finished.
                np.save(f"{path}.tmp.npy", self.scores)
                os.replace(f"{path}.tmp.npy", path)
                self.scores = _opened(path, shape)
        self.done = int((~np.isnan(self.scores)).sum())

    def remove(self) -> None:
        """Forget the file."""
        self.scores = None
        if self.path and os.path.isfile(self.path):
            os.unlink(self.path)


def _opened(path: str, shape: tuple[int, int]) -> np.ndarray | None:
    try:
        scores = np.load(path, mmap_mode="r+", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return scores if scores.shape == shape and scores.dtype == np.float32 else None


def _path(cfg: "CfgNode", model: torch.nn.Module, pool: Pool) -> str:
    """Named after everything that the scores depend on."""
    if not cfg.OUTPUT_DIR:
        return ""
    digest = hashlib.blake2b(digest_size=12)
    chunks = [value for chunk in pool.images for value in chunk.values()]
    for tensor in (*model.state_dict().values(), *pool.texts.values(), *chunks):
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    digest.update(repr((cfg.SOLVER.PRECISION, pool.image_ids)).encode())
    share = f"{comm.get_rank()}_of_{comm.get_world_size()}"
    folder = os.path.join(expand_path(cfg.OUTPUT_DIR), FOLDER)
    return os.path.join(folder, f"{digest.hexdigest()}.{share}.npy")


def _matrix(shards: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The scores (T, I) of all texts in their order."""
    matrix = np.empty((sum(len(own) for own, _ in shards), shards[0][1].shape[1]), np.float32)
    for own, scores in shards:
        matrix[own] = scores
    return matrix


def _lengths(pool: Pool) -> Tensor:
    masks = pool.texts.get(kfg.TOKENS_MASKS)
    tokens = pool.texts[kfg.U_TOKENS_IDS]
    return torch.full((len(tokens),), tokens.shape[1]) if masks is None else masks.bool().sum(1)


def _texts(pool: Pool, rows: np.ndarray) -> dict[str, Tensor]:
    index = torch.from_numpy(np.ascontiguousarray(rows))
    longest = int(_lengths(pool)[index].max())
    return {key: value[index, :longest] for key, value in pool.texts.items()}


def _blocks(count: int, size: int) -> Iterator[slice]:
    size = max(1, size)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _width(columns: slice) -> int:
    return columns.stop - columns.start
