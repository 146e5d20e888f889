"""Ranking pictures by captions and captions by pictures: ranks, recalls, top candidates.

Vectors are compared block by block, so that memory stays bounded whatever the number of candidates,
and every rank is that of a stable descending sort: among equal scores the candidate that comes
first in the pool is ahead, whether it is the right one or not. A model that scores all candidates
alike is therefore at chance.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.utils.errors import UserError

__all__ = [
    "blockwise_ranks",
    "group_texts",
    "itm_eval",
    "metrics_of_ranks",
    "rank_scores",
    "ranks_in_rows",
    "top_candidates",
]

RECALLS = (1, 5, 10)
_BLOCK_BYTES = 64 << 20  # of scores at a time, where no block size is given


def blockwise_ranks(
    image_vectors: Tensor | np.ndarray,
    text_vectors: Tensor | np.ndarray,
    text_image_index: Any,
    block: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of the right candidates in both directions, scored by inner products.

    Args:
        image_vectors: ``(I, P)`` float, on any device.
        text_vectors: ``(T, P)`` float.
        text_image_index: ``(T,)`` int, the picture that each text describes, or a ``(T, I)`` matrix
            that is not 0 where text and picture belong together.
        block: Queries that are scored together against the whole pool; by default as many as fit
            into 64 MB of scores.

    Returns:
        Ranks from 0: ``(T,)`` of the best of each text's pictures among all pictures, and ``(I,)``
        of the best of each picture's texts among all texts; -1 where a query has no right
        candidate.

    Raises:
        UserError: Shapes do not fit, something is not finite, or an index is out of range.
    """
    images, texts = _vectors(image_vectors, "pictures"), _vectors(text_vectors, "texts")
    if images.shape[1] != texts.shape[1]:
        raise UserError(
            f"pictures have vectors of {images.shape[1]} numbers but texts of {texts.shape[1]}; "
            "inner products need vectors of one length"
        )
    truth = _Truth(text_image_index, len(texts), len(images))
    text_ranks = _ranks_of(_products(texts, images, block), truth.images_of_text)
    image_ranks = _ranks_of(_products(images, texts, block), truth.texts_of_image)
    return text_ranks, image_ranks


def rank_scores(
    score_blocks: Tensor | np.ndarray | Iterable[Tensor | np.ndarray], text_to_image: Any
) -> dict[str, float]:
    """Metrics of scores that were computed pair by pair.

    Args:
        score_blocks: Scores ``(T, I)`` of texts with pictures, whole (a memory-mapped file will do)
            or as blocks of rows in the order of the texts.
        text_to_image: As ``text_image_index`` of :func:`blockwise_ranks`.

    Returns:
        As :func:`metrics_of_ranks`.

    Raises:
        UserError: There are no scores, some are NaN, or they do not fit to ``text_to_image``.
    """
    return metrics_of_ranks(*_ranks_of_matrix(_whole(score_blocks), text_to_image))


def itm_eval(score_matrix: Tensor | np.ndarray, t2gtiidxes: Any) -> dict[str, float]:
    """Recalls of a matrix of matching scores, as fractions.

    Args:
        score_matrix: ``(T, I)``, a row a text.
        t2gtiidxes: Right picture of each text: ``(T,)``, or a mapping or sequence of indices.

    Returns:
        ``img_r1``, ``img_r5``, ``img_r10`` (texts that find their picture), their mean
        ``img_r_mean``, the same as ``txt_*`` (pictures that find one of their texts), and
        everything in :func:`metrics_of_ranks`, in percent.
    """
    if hasattr(t2gtiidxes, "keys"):
        t2gtiidxes = [t2gtiidxes[row] for row in range(len(t2gtiidxes))]
    by_text, by_image = _ranks_of_matrix(_whole(score_matrix), t2gtiidxes)
    metrics: dict[str, float] = {}
    for name, ranks in (("img", by_text), ("txt", by_image)):
        recalls = {f"{name}_r{k}": _recall(ranks, k) / 100 for k in RECALLS}
        metrics |= recalls | {f"{name}_r_mean": float(np.mean(list(recalls.values())))}
    return metrics | metrics_of_ranks(by_text, by_image)


def metrics_of_ranks(text_ranks: np.ndarray, image_ranks: np.ndarray) -> dict[str, float]:
    """The usual numbers of both directions.

    Args:
        text_ranks: Ranks from 0 of the right pictures, one a text; negative ones do not count.
        image_ranks: Ranks from 0 of the best right texts, one a picture.

    Returns:
        ``t2i/R@1``, ``t2i/R@5``, ``t2i/R@10`` in percent, ``t2i/medr`` (floor of the median rank
        from 1) and ``t2i/meanr``; the same under ``i2t/``; their mean recall ``r_mean``; and the
        numbers of ``t2i`` under their released names ``r1``, ``r5``, ``r10``, ``mder``, ``meanr``,
        with ``medr`` as the right spelling of ``mder``.
    """
    metrics: dict[str, float] = {}
    for name, ranks in (("t2i", text_ranks), ("i2t", image_ranks)):
        counted = ranks[ranks >= 0]
        metrics |= {f"{name}/R@{k}": _recall(ranks, k) for k in RECALLS}
        metrics[f"{name}/medr"] = float(np.floor(np.median(counted) + 1)) if len(counted) else 0.0
        metrics[f"{name}/meanr"] = float(counted.mean() + 1) if len(counted) else 0.0
    recalls = [value for key, value in metrics.items() if "R@" in key]
    return metrics | {
        "r_mean": float(np.mean(recalls)),
        **{f"r{k}": metrics[f"t2i/R@{k}"] for k in RECALLS},
        "mder": metrics["t2i/medr"],
        "medr": metrics["t2i/medr"],
        "meanr": metrics["t2i/meanr"],
    }


def group_texts(text_image_index: Sequence[int] | np.ndarray, images: int) -> np.ndarray:
    """The texts of every picture.

    Args:
        text_image_index: ``(T,)`` int, the picture of each text.
        images: How many pictures there are.

    Returns:
        ``(images, G)`` int64: indices of texts in their order, filled up with -1; G is the most
        texts of a picture.
    """
    index = np.asarray(text_image_index, dtype=np.int64)
    return _padded(index, np.arange(len(index)), images)


def top_candidates(
    queries: Tensor, pool: Tensor, k: int, block: int | None = None
) -> tuple[Tensor, Tensor]:
    """The best candidates of each query by inner product, equal ones in the order of the pool.

    Args:
        queries: ``(Q, P)`` float.
        pool: ``(N, P)`` float.
        k: How many; at most N are given.
        block: Queries at a time.

    Returns:
        Scores ``(Q, k)`` in descending order and their indices ``(Q, k)`` int64, on the CPU.
    """
    queries, pool = _vectors(queries, "queries"), _vectors(pool, "candidates")
    if k < 1:
        raise UserError(f"the best {k} candidates were asked for; at least 1 is needed")
    found = [_stable_top(scores, min(k, len(pool))) for scores in _products(queries, pool, block)]
    return torch.cat([scores for scores, _ in found]), torch.cat([index for _, index in found])


def ranks_in_rows(scores: Tensor, right: Tensor) -> Tensor:
    """The rank of the best right candidate in every row, as a stable descending sort gives it.

    Args:
        scores: ``(R, N)`` float without NaN.
        right: ``(R, G)`` int64 indices of right candidates, -1 where there are fewer.

    Returns:
        ``(R,)`` int64 from 0; -1 in rows without any right candidate.
    """
    none = right < 0
    values = scores.gather(1, right.clamp(min=0)).masked_fill(none, -torch.inf)
    best = values.max(dim=1, keepdim=True).values
    # The first of the right ones with that score: the one a stable sort meets first.
    place = right.masked_fill(none | (values < best), scores.shape[1]).min(1, keepdim=True).values
    columns = torch.arange(scores.shape[1], device=scores.device)
    ahead = (scores > best) | ((scores == best) & (columns < place))
    return ahead.sum(1).masked_fill(none.all(1), -1)


def _stable_top(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    threshold = scores.topk(k, dim=1).values[:, -1:]
    kept, places = [], []
    for row, least in zip(scores, threshold, strict=True):
        # All above the k-th score, and of those equal to it the first ones of the pool.
        candidates = (row >= least).nonzero().flatten()
        order = row[candidates].argsort(descending=True, stable=True)[:k]
        places.append(candidates[order])
        kept.append(row[places[-1]])
    return torch.stack(kept).cpu(), torch.stack(places).cpu()


class _Truth:
    """Which texts and pictures belong together, as padded indices for both directions."""

    def __init__(self, given: Any, texts: int, images: int) -> None:
        index = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
        if index.shape == (texts, images) and index.ndim == 2:
            of_text, of_image = index.nonzero()
        elif index.shape == (texts,):
            if texts and not np.issubdtype(index.dtype, np.integer):
                raise UserError("the picture of each text is given by its index, an integer")
            of_text, of_image = np.arange(texts), index.astype(np.int64)
        else:
            raise UserError(
                f"which picture a text belongs to has shape {index.shape}; with {texts} texts and "
                f"{images} pictures it is ({texts},) or ({texts}, {images})"
            )
        wrong = (of_image < 0) | (of_image >= images)
        if wrong.any():
            raise UserError(
                f"text {of_text[wrong][0]} belongs to picture {of_image[wrong][0]}, but there are "
                f"{images} pictures, 0 to {images - 1}"
            )
        self.images_of_text = _padded(of_text, of_image, texts)
        self.texts_of_image = _padded(of_image, of_text, images)


def _padded(owners: np.ndarray, members: np.ndarray, count: int) -> np.ndarray:
    """Members by owner: ``(count, G)``, in order, filled up with -1."""
    order = np.argsort(owners, kind="stable")
    sizes = np.bincount(owners, minlength=count)
    table = np.full((count, max(1, sizes.max(initial=0))), -1, dtype=np.int64)
    sorted_owners = owners[order]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    table[sorted_owners, np.arange(len(order)) - starts[sorted_owners]] = members[order]
    return table


def _vectors(given: Tensor | np.ndarray, what: str) -> Tensor:
    vectors = torch.as_tensor(given)
    if vectors.ndim != 2 or 0 in vectors.shape:
        raise UserError(
            f"the vectors of the {what} have shape {tuple(vectors.shape)}; (number, width) is "
            "right, with at least one of them"
        )
    vectors = vectors.float() if vectors.dtype != torch.float64 else vectors
    if not vectors.isfinite().all():
        row = int((~vectors.isfinite()).any(1).nonzero()[0])
        raise UserError(f"vector {row} of the {what} is not finite")
    return vectors.detach()


def _products(queries: Tensor, pool: Tensor, block: int | None) -> Iterator[Tensor]:
    size = _rows(block, len(pool), pool.element_size())
    transposed = pool.t()
    for start in range(0, len(queries), size):
        yield queries[start : start + size].to(pool) @ transposed


def _rows(block: int | None, columns: int, element_size: int = 4) -> int:
    if block is None:
        return max(1, _BLOCK_BYTES // (columns * element_size))
    if block < 1:
        raise UserError(f"block is {block}; at least one query is scored at a time")
    return block


def _ranks_of(blocks: Iterable[Tensor], right: np.ndarray) -> np.ndarray:
    done, ranks = 0, []
    for scores in blocks:
        rows = torch.from_numpy(right[done : done + len(scores)]).to(scores.device)
        ranks.append(ranks_in_rows(scores, rows).cpu().numpy())
        done += len(scores)
    return np.concatenate(ranks)


def _ranks_of_matrix(scores: np.ndarray, text_to_image: Any) -> tuple[np.ndarray, np.ndarray]:
    truth = _Truth(text_to_image, *scores.shape)
    return (
        _ranks_of(_rows_of(scores), truth.images_of_text),
        _ranks_of(_rows_of(scores.T), truth.texts_of_image),
    )


def _rows_of(matrix: np.ndarray) -> Iterator[Tensor]:
    size = _rows(None, matrix.shape[1])
    for start in range(0, len(matrix), size):
        rows = torch.from_numpy(np.ascontiguousarray(matrix[start : start + size]))
        if rows.isnan().any():
            raise UserError("some scores are NaN, which have no place in a ranking")
        yield rows


def _whole(score_blocks: Any) -> np.ndarray:
    if not isinstance(score_blocks, Tensor | np.ndarray):
        blocks = [_as_array(block) for block in score_blocks]
        score_blocks = np.concatenate(blocks) if blocks else np.empty((0, 0), np.float32)
    scores = _as_array(score_blocks)
    if scores.ndim != 2 or 0 in scores.shape:
        raise UserError(
            f"the scores have shape {scores.shape}; (texts, pictures) is right, with at least one "
            "of each"
        )
    return scores


def _as_array(part: Any) -> np.ndarray:
    if isinstance(part, Tensor):
        return part.detach().float().cpu().numpy()
    return np.asanyarray(part)


def _recall(ranks: np.ndarray, k: int) -> float:
    counted = ranks[ranks >= 0]
    return float(100 * (counted < k).mean()) if len(counted) else 0.0
