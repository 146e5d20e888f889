"""Scores of texts with pictures that a model computes pair by pair, kept so that work can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["ScoreMatrix", "score_pairs"]


class ScoreMatrix:
    """Scores ``(texts, pictures)`` that are filled in parts, in memory or in a file.

    A single-stream model needs a forward pass for every pair, hours for a large split. With a file
    an evaluation that was killed goes on where it stopped: what is not scored yet is NaN there.

    Args:
        texts: Rows.
        images: Columns.
        path: A ``.npy`` file; '' keeps the scores in memory.
        fingerprint: Says what is scored (weights, data). A file with another fingerprint or shape
            is begun anew.

    Attributes:
        values: ``(texts, images)`` float32.
    """

    def __init__(self, texts: int, images: int, path: str = "", fingerprint: str = "") -> None:
        if texts < 1 or images < 1:
            raise UserError(
                f"{texts} texts and {images} pictures make no pairs; 1 of each is least"
            )
        shape = (texts, images)
        self.path = expand_path(path) if path else ""
        if not self.path:
            self.values = np.full(shape, np.nan, np.float32)
            return
        about = {"fingerprint": fingerprint, "texts": texts, "images": images}
        if not self._is_begun(about):
            self._begin(shape, about)
        self.values = np.lib.format.open_memmap(self.path, mode="r+")

    def missing(self) -> np.ndarray:
        """The rows that are not scored to the end."""
        rows = max(1, (64 << 20) // (4 * self.values.shape[1]))
        parts = [
            np.isnan(self.values[start : start + rows]).any(1)
            for start in range(0, len(self.values), rows)
        ]
        return np.concatenate(parts).nonzero()[0]

    def put(self, row: int, scores: Tensor | np.ndarray, start: int = 0) -> None:
        """Keeps the scores ``(n,)`` of a text with the pictures from ``start`` on.

        Raises:
            UserError: One of them is NaN.
        """
        if isinstance(scores, Tensor):
            scores = scores.detach().float().cpu().numpy()
        if np.isnan(scores).any():
            raise UserError(f"a score of text {row} is NaN, which has no place in a ranking")
        self.values[row, start : start + len(scores)] = scores

    def flush(self) -> None:
        """Brings what was put to the disk."""
        if isinstance(self.values, np.memmap):
            self.values.flush()

    @property
    def _note(self) -> str:
        return f"{self.path}.json"

    def _is_begun(self, about: dict[str, str | int]) -> bool:
        try:
            with open(self._note, encoding="utf-8") as file:
                if json.load(file) != about:
                    return False
            values = np.load(self.path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return False
        return values.shape == (about["texts"], about["images"]) and values.dtype == np.float32

    def _begin(self, shape: tuple[int, int], about: dict[str, str | int]) -> None:
        if not self.path.endswith(".npy"):
            raise UserError(f"scores are kept in a .npy file, not in '{self.path}'")
        if os.path.lexists(self._note):
            os.unlink(self._note)  # it would vouch for a half-made file
        with atomic_write(self.path) as file:
            np.lib.format.write_array_header_2_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            row = np.full(shape[1], np.nan, np.float32).tobytes()
            for _ in range(shape[0]):
                file.write(row)
        with atomic_write(self._note, "w") as file:
            json.dump(about, file)


def score_pairs(
    score: Callable[[int, range], Tensor | np.ndarray],
    matrix: ScoreMatrix,
    images_at_once: int = 200,
) -> np.ndarray:
    """Fills what is missing in a matrix of scores.

    Args:
        score: From a text and some pictures to the scores ``(n,)`` of the pairs.
        matrix: Where they go.
        images_at_once: Pairs that are scored together.

    Returns:
        The scores ``(texts, images)``.
    """
    if images_at_once < 1:
        raise UserError(f"images_at_once is {images_at_once}; it is at least 1")
    images = matrix.values.shape[1]
    with torch.inference_mode():
        for row in matrix.missing():
            for start in range(0, images, images_at_once):
                chosen = range(start, min(images, start + images_at_once))
                matrix.put(int(row), score(int(row), chosen), start)
            matrix.flush()
    return matrix.values
