"""Communication between processes: alone, and with two on gloo."""

import os

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from xmodaler.utils import comm, distributed


def test_a_single_process_needs_no_group():
    assert (comm.get_world_size(), comm.get_rank()) == (1, 0)
    assert (comm.get_local_rank(), comm.get_local_size()) == (0, 1)
    assert comm.is_main_process()
    comm.synchronize()
    assert comm.all_gather({"a": 1}) == [{"a": 1}] and comm.gather(3) == [3]
    losses = {"a": torch.tensor(1.0)}
    assert comm.reduce_dict(losses) is losses
    tensor = torch.ones(2)
    assert comm.mean_over_ranks(tensor) is tensor
    assert 0 <= comm.shared_random_seed() < 2**31
    assert distributed.all_gather_list("x") == ["x"]
    assert distributed.any_broadcast("x", 0) == "x"
    distributed.broadcast_tensors([tensor], 0)


def test_models_are_unwrapped():
    model = torch.nn.Linear(1, 1)
    assert comm.unwrap_model(model) is model
    assert comm.unwrap_model(torch.nn.DataParallel(model)) is model
    holder = torch.nn.Module()
    holder.module = model
    assert comm.unwrap_model(holder) is holder


def _worker(rank, world, folder):
    os.environ.update(LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(world))
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    try:
        _check(rank, world)
    finally:
        dist.destroy_process_group()


def _check(rank, world):
    assert (comm.get_rank(), comm.get_world_size()) == (rank, world)
    assert (comm.get_local_rank(), comm.get_local_size()) == (rank, world)
    assert comm.is_main_process() == (rank == 0)
    comm.synchronize()

    assert comm.all_gather({"rank": rank, "x": [rank] * rank}) == [
        {"rank": r, "x": [r] * r} for r in range(world)
    ]
    expected = list(range(world))
    assert comm.gather(rank) == (expected if rank == 0 else [])
    assert comm.gather(rank, dst=1) == (expected if rank == 1 else [])

    np.random.seed(rank)
    assert len(set(comm.all_gather(comm.shared_random_seed()))) == 1

    names = ["b", "a"] if rank else ["a", "b"]
    values = {name: torch.tensor(float(rank + (name == "b"))) for name in names}
    reduced = comm.reduce_dict(values)
    summed = comm.reduce_dict(values, average=False)
    if rank == 0:
        assert {name: value.item() for name, value in reduced.items()} == {"a": 0.5, "b": 1.5}
        assert summed["b"].item() == 3.0

    count = torch.tensor(rank * 4 + 1)
    mean = comm.mean_over_ranks(count)
    assert mean.item() == 3.0 and mean.dtype == torch.float32 and count.item() == rank * 4 + 1
    weights = torch.full((2,), float(rank), requires_grad=True)
    assert comm.mean_over_ranks(weights).tolist() == [0.5, 0.5]
    assert not comm.mean_over_ranks(weights).requires_grad

    assert distributed.all_gather_list(rank) == expected
    assert distributed.any_broadcast({"from": rank}, 1) == {"from": 1}
    tensors = [
        torch.full((3, 2), float(rank)),
        torch.full((4,), rank),
        torch.full((1000,), float(rank)),
        torch.tensor(float(rank), requires_grad=True),
    ]
    distributed.broadcast_tensors(tensors, 1, buffer_size=64)
    assert all((tensor == 1).all() for tensor in tensors)


def test_two_processes_on_gloo(tmp_path):
    mp.spawn(_worker, args=(2, str(tmp_path)), nprocs=2)


def _group_worker(rank, folder):
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    # What `launch` does on each machine; here every process is a machine of its own.
    groups = [dist.new_group([0]), dist.new_group([1])]
    comm._LOCAL_PROCESS_GROUP = groups[rank]
    assert (comm.get_local_rank(), comm.get_local_size()) == (0, 1)
    assert comm.all_gather(rank, group=groups[rank]) == [rank]
    dist.destroy_process_group()


def test_the_local_group_of_launch_decides_about_local_ranks(tmp_path):
    mp.spawn(_group_worker, args=(str(tmp_path),), nprocs=2)


def test_without_any_hint_all_processes_are_local(monkeypatch):
    for name in ("LOCAL_RANK", "SLURM_LOCALID", "LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(comm, "_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda group=None: 3)
    monkeypatch.setattr(dist, "get_world_size", lambda group=None: 4)
    assert (comm.get_local_rank(), comm.get_local_size()) == (3, 4)
    monkeypatch.setenv("SLURM_LOCALID", "1")
    assert comm.get_local_rank() == 1


@pytest.mark.parametrize("name", ["all_gather", "gather"])
def test_a_group_of_one_returns_the_data_itself(name):
    data = object()
    assert getattr(comm, name)(data)[0] is data
