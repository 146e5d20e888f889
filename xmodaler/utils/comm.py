"""Communication between processes; with a single process every helper is the identity.

All helpers work with any backend (gloo on CPU included), whoever made the process group:
``launch``, ``torchrun``, ``srun`` or the user.
"""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# The group of the processes on this machine; ``launch`` sets it.
_LOCAL_PROCESS_GROUP: dist.ProcessGroup | None = None
# The default group and the gloo group that was made beside it.
_CPU_GROUP: tuple[dist.ProcessGroup, dist.ProcessGroup] | None = None


def _initialized() -> bool:
    return dist.is_available() and dist.is_initialized()


def get_world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if _initialized() else 1


def get_rank() -> int:
    """Index of this process among all, from 0."""
    return dist.get_rank() if _initialized() else 0


def get_local_rank() -> int:
    """Index of this process among those of its machine.

    Taken from the local group of ``launch``, else from ``LOCAL_RANK`` (torchrun) or
    ``SLURM_LOCALID`` (srun), else the rank itself, as on one machine.
    """
    if not _initialized():
        return 0
    if _LOCAL_PROCESS_GROUP is not None:
        return dist.get_rank(group=_LOCAL_PROCESS_GROUP)
    return _from_environment(("LOCAL_RANK", "SLURM_LOCALID"), get_rank())


def get_local_size() -> int:
    """Number of processes on this machine; sources as for :func:`get_local_rank`."""
    if not _initialized():
        return 1
    if _LOCAL_PROCESS_GROUP is not None:
        return dist.get_world_size(group=_LOCAL_PROCESS_GROUP)
    return _from_environment(("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"), get_world_size())


def _from_environment(names: tuple[str, ...], default: int) -> int:
    for name in names:
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return default


def is_main_process() -> bool:
    """Whether this is rank 0."""
    return get_rank() == 0


def synchronize() -> None:
    """Wait until every process is here."""
    if get_world_size() == 1:
        return
    if dist.get_backend() == dist.Backend.NCCL:
        # Naming the device spares NCCL a guess, and the warning about it.
        dist.barrier(device_ids=[torch.cuda.current_device()])
    else:
        dist.barrier()


def cpu_group() -> dist.ProcessGroup | None:
    """A group of all processes that moves CPU data, made once per default group."""
    global _CPU_GROUP
    if dist.get_backend() != dist.Backend.NCCL:
        return dist.group.WORLD
    if _CPU_GROUP is None or _CPU_GROUP[0] is not dist.group.WORLD:
        _CPU_GROUP = (dist.group.WORLD, dist.new_group(backend="gloo"))
    return _CPU_GROUP[1]


def all_gather(data: Any, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Every process' ``data`` (anything picklable) by rank, on every process.

    Args:
        data: Any picklable object.
        group: A group whose backend moves CPU data; None for all processes.
    """
    if get_world_size() == 1:
        return [data]
    group = cpu_group() if group is None else group
    size = dist.get_world_size(group)
    if size == 1:
        return [data]
    gathered: list[Any] = [None] * size
    dist.all_gather_object(gathered, data, group=group)
    return gathered


def gather(data: Any, dst: int = 0, group: dist.ProcessGroup | None = None) -> list[Any]:
    """Every process' ``data`` by rank on process ``dst``; an empty list on the others.

    Args:
        data: Any picklable object.
        dst: Global rank that receives.
        group: As for :func:`all_gather`.
    """
    if get_world_size() == 1:
        return [data]
    group = cpu_group() if group is None else group
    size = dist.get_world_size(group)
    if size == 1:
        return [data]
    receives = get_rank() == dst
    gathered: list[Any] | None = [None] * size if receives else None
    dist.gather_object(data, gathered, dst=dst, group=group)
    return gathered if gathered is not None else []


def shared_random_seed() -> int:
    """One random int, the same on every process (drawn by rank 0's numpy generator)."""
    return all_gather(int(np.random.randint(2**31)))[0]


def reduce_dict(
    input_dict: dict[str, torch.Tensor], average: bool = True
) -> dict[str, torch.Tensor]:
    """Sum or average scalar tensors over processes onto rank 0.

    Args:
        input_dict: Scalar tensors; every process has the same keys.
        average: Whether to divide by the number of processes.

    Returns:
        The reduced values on rank 0. Other ranks get values that mean nothing.
    """
    world_size = get_world_size()
    if world_size == 1:
        return input_dict
    with torch.no_grad():
        # Sorted, so that every process stacks its values in one order.
        names = sorted(input_dict)
        values = torch.stack([input_dict[name] for name in names])
        dist.reduce(values, dst=0)
        if average and get_rank() == 0:
            values /= world_size
        return dict(zip(names, values, strict=True))


def mean_over_ranks(tensor: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over processes, on every process; no gradient flows through it.

    Args:
        tensor: Any shape; the same on every process. It is not changed.

    Returns:
        A tensor of the same shape and, where it is a float, dtype (ints become float32). With
        one process the tensor itself.
    """
    world_size = get_world_size()
    if world_size == 1:
        return tensor
    mean = tensor.detach()
    mean = mean.clone() if mean.is_floating_point() else mean.float()
    dist.all_reduce(mean)
    return mean / world_size


def gather_rows(rows: torch.Tensor, exact: bool = True) -> torch.Tensor:
    """The rows of all processes by rank, on every process; each has as many.

    Args:
        rows: (R, ...).
        exact: Whether the gradient that reaches ``rows`` is the sum of what all processes make of
            them; otherwise it is what this process makes of them.

    Returns:
        (R * processes, ...).
    """
    if get_world_size() == 1:
        return rows
    if exact and rows.requires_grad:
        return _GatheredRows.apply(rows)
    gathered = _gathered(rows.detach())
    gathered[get_rank()] = rows
    return torch.cat(gathered)


def _gathered(rows: torch.Tensor) -> list[torch.Tensor]:
    rows = rows.contiguous()
    gathered = [torch.empty_like(rows) for _ in range(get_world_size())]
    dist.all_gather(gathered, rows)
    return gathered


class _GatheredRows(torch.autograd.Function):
    """The rows of all processes; the gradients that all of them have for a row are summed."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor) -> torch.Tensor:
        return torch.cat(_gathered(rows))

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        # Autograd owns what it hands over, and the sum is written in place.
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient.chunk(get_world_size())[get_rank()]


def average_gradients(parameters: Iterable[torch.nn.Parameter]) -> None:
    """Replace the gradients of all processes by their mean.

    A parameter without a gradient on some processes counts as 0 there; one without any stays so.

    Args:
        parameters: In the same order on every process.
    """
    if get_world_size() == 1:
        return
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    device = learned[0].device
    has_one = torch.tensor([p.grad is not None for p in learned], device=device).int()
    dist.all_reduce(has_one, op=dist.ReduceOp.MAX)
    for parameter, any_has in zip(learned, has_one.tolist(), strict=True):
        if any_has:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= get_world_size()


def broadcast_buffers(module: torch.nn.Module, source: int = 0) -> None:
    """Give every process the buffers of one, such as the statistics of batch normalisation.

    Args:
        module: A module of the same structure on every process; its buffers are overwritten.
        source: The rank whose buffers all processes get.
    """
    if get_world_size() == 1:
        return
    for _, buffer in sorted(module.named_buffers()):
        dist.broadcast(buffer, src=source)


def unwrap_model(model: Any) -> Any:
    """The model inside a (Distributed)DataParallel or compiled wrapper, or the model itself."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif isinstance(model, torch.nn.parallel.DistributedDataParallel | torch.nn.DataParallel):
            model = model.module
        else:
            return model
