"""Vectors of pictures or texts that are searched by inner product, exactly or approximately."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.evaluation.retrieval import top_candidates
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

__all__ = ["VectorIndex"]

EXACT = "exact"
_FORMAT = "xmodaler vector index 1"
_EFFORT = 64  # candidates that an approximate search looks at, at least


class VectorIndex:
    """Named vectors, to which more can be added and among which the nearest can be found.

    Up to some hundred thousand vectors an exact search takes milliseconds a query. For millions,
    ``kind`` names an approximate index of the library faiss, for example ``"HNSW32"`` (Malkov and
    Yashunin 2018; no training, most exact) or ``"IVF4096,PQ64"`` (inverted lists of compressed
    vectors; trained on what is added first).

    Args:
        width: Numbers of a vector.
        kind: ``"exact"``, or an index description of faiss, which needs ``pip install
            xmodaler[ann]``.

    Raises:
        UserError: faiss is not there or does not know the description.
    """

    def __init__(self, width: int, kind: str = EXACT) -> None:
        self.width = width
        self.kind = kind
        self.names: list[str] = []
        self._known: set[str] = set()
        self._parts: list[Tensor] = []
        self._ann = None if kind == EXACT else _new_ann(width, kind)

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: str) -> bool:
        return name in self._known

    def add(self, names: Sequence[str], vectors: Tensor | np.ndarray) -> None:
        """Adds vectors ``(N, width)`` under N new names.

        Raises:
            UserError: A name is there already, or the vectors are of another form.
        """
        names = [str(name) for name in names]
        vectors = self._checked(vectors)
        if len(names) != len(vectors):
            raise UserError(f"{len(names)} names were given for {len(vectors)} vectors")
        seen = set(names)
        twice = next((name for name in names if name in self._known), None)
        if twice is not None or len(seen) < len(names):
            twice = twice or next(name for name in names if names.count(name) > 1)
            raise UserError(f"'{twice}' would be in the index twice; names are unique")
        if self._ann is None:
            self._parts.append(vectors)
        elif names:
            array = vectors.numpy()
            if not self._ann.is_trained:
                self._train(array)
            self._ann.add(array)
        self.names += names
        self._known |= seen

    def search(self, queries: Tensor | np.ndarray, k: int) -> list[list[tuple[str, float]]]:
        """The nearest vectors of each query.

        Args:
            queries: ``(Q, width)``.
            k: How many to find; fewer are given where there are not so many.

        Returns:
            For each query (name, inner product) in descending order.
        """
        queries = self._checked(queries)
        if k < 1:
            raise UserError(f"the best {k} were asked for; at least 1 is needed")
        if not self.names:
            raise UserError("the index is empty; add vectors before searching")
        if self._ann is None:
            if len(self._parts) > 1:
                self._parts = [torch.cat(self._parts)]
            scores, places = (found.tolist() for found in top_candidates(queries, *self._parts, k))
        else:
            k = min(k, len(self))
            _set_effort(self._ann, k)
            scores, places = (found.tolist() for found in self._ann.search(queries.numpy(), k))
        # An approximate index pads what it did not find with -1.
        return [
            [(self.names[p], s) for s, p in zip(row, at, strict=True) if p >= 0]
            for row, at in zip(scores, places, strict=True)
        ]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the index to one file, whole or not at all."""
        from safetensors.numpy import save

        if self._ann is None:
            vectors = torch.cat([torch.empty(0, self.width), *self._parts]).numpy()
        else:
            import faiss

            vectors = faiss.serialize_index(self._ann)
        names = np.frombuffer(json.dumps(self.names).encode(), dtype=np.uint8)
        about = {"format": _FORMAT, "kind": self.kind, "width": str(self.width)}
        with atomic_write(expand_path(os.fspath(path))) as file:
            file.write(save({"names": names, "vectors": vectors}, metadata=about))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> VectorIndex:
        """Reads what :meth:`save` wrote.

        Raises:
            UserError: The file is missing, damaged, or something else.
        """
        from safetensors import SafetensorError, safe_open

        path = expand_path(os.fspath(path))
        if not os.path.isfile(path):
            raise UserError(f"the index '{path}' does not exist")
        try:
            with safe_open(path, framework="numpy") as file:
                about = file.metadata() or {}
                if about.get("format") != _FORMAT:
                    raise UserError(f"'{path}' is no index of vectors")
                index = cls(int(about["width"]), about["kind"])
                names = json.loads(file.get_tensor("names").tobytes())
                index._restore([str(name) for name in names], file.get_tensor("vectors"))
        except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"the index '{path}' cannot be read, it is damaged: {error}") from error
        return index

    def _restore(self, names: list[str], vectors: np.ndarray) -> None:
        if self._ann is None:
            self.add(names, vectors)
            return
        import faiss

        self._ann = faiss.deserialize_index(vectors)
        if self._ann.d != self.width or self._ann.ntotal != len(names):
            raise ValueError("names and vectors do not belong together")
        self.names, self._known = names, set(names)

    def _checked(self, given: Tensor | np.ndarray) -> Tensor:
        vectors = torch.as_tensor(given).detach().float().cpu().contiguous()
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise UserError(
                f"vectors of shape {tuple(vectors.shape)} do not fit into an index of width "
                f"{self.width}; (number, {self.width}) is right"
            )
        if not vectors.isfinite().all():
            raise UserError("a vector for the index is not finite")
        return vectors

    def _train(self, vectors: np.ndarray) -> None:
        try:
            self._ann.train(vectors)
        except RuntimeError as error:
            raise UserError(
                f"an index '{self.kind}' cannot be trained on {len(vectors)} vectors; add more at "
                "first, or choose HNSW32, which needs no training"
            ) from error


def _new_ann(width: int, kind: str) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise UserError(
            f"an index of kind '{kind}' needs the library faiss: pip install xmodaler[ann]; "
            "'exact' needs nothing"
        ) from error
    try:
        return faiss.index_factory(width, kind, faiss.METRIC_INNER_PRODUCT)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"faiss makes no index '{kind}' for vectors of width {width}; 'exact', 'HNSW32' or "
            "'IVF4096,PQ64' are kinds"
        ) from error


def _set_effort(index: Any, k: int) -> None:
    import faiss

    inner = faiss.downcast_index(index)
    if isinstance(inner, faiss.IndexHNSW):
        inner.hnsw.efSearch = max(_EFFORT, 2 * k)
    elif isinstance(inner, faiss.IndexIVF):
        inner.nprobe = min(inner.nlist, max(8, inner.nlist // 16))
