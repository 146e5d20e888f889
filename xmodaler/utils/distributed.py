"""Exchanging objects and tensors between processes, on any backend and device."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from . import comm

_BUFFER_BYTES = 10 * 2**20


def all_gather_list(data: Any) -> list[Any]:
    """Every process' ``data`` (anything picklable) by rank, on every process."""
    return comm.all_gather(data)


def any_broadcast(data: Any, root_rank: int, n_gpu: int | None = None) -> Any:
    """``data`` of process ``root_rank``, on every process.

    Args:
        data: Anything picklable; only the root's matters.
        root_rank: The process that sends.
        n_gpu: Accepted for compatibility; the number of processes is asked of the group.
    """
    del n_gpu
    if comm.get_world_size() == 1:
        return data
    box = [data if comm.get_rank() == root_rank else None]
    dist.broadcast_object_list(box, src=root_rank, group=comm.cpu_group())
    return box[0]


def broadcast_tensors(
    tensors: Sequence[Tensor], root_rank: int, buffer_size: int = _BUFFER_BYTES
) -> None:
    """Overwrite tensors with those of process ``root_rank``, in place.

    Small tensors of one dtype and device travel together, as many as fit the buffer.

    Args:
        tensors: The same shapes in the same order on every process.
        root_rank: The process that sends.
        buffer_size: Bytes sent at a time.
    """
    if comm.get_world_size() == 1:
        return
    for chunk in _chunks(tensors, buffer_size):
        flat = torch.cat([tensor.detach().reshape(-1) for tensor in chunk])
        dist.broadcast(flat, src=root_rank)
        parts = flat.split([tensor.numel() for tensor in chunk])
        with torch.no_grad():
            for tensor, part in zip(chunk, parts, strict=True):
                tensor.copy_(part.view_as(tensor))


def _chunks(tensors: Sequence[Tensor], buffer_size: int) -> list[list[Tensor]]:
    chunks: list[list[Tensor]] = []
    size = 0
    for tensor in tensors:
        length = tensor.numel() * tensor.element_size()
        fits = bool(chunks) and size + length <= buffer_size and _alike(chunks[-1][0], tensor)
        if not fits:
            chunks.append([])
            size = 0
        chunks[-1].append(tensor)
        size += length
    return chunks


def _alike(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and first.device == second.device
