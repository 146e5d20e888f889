"""Memory of a loader's workers over a long epoch."""

import os

import numpy as np
import pytest
import torch

from xmodaler.datasets import build_xmodaler_train_loader

RECORDS = 100_000


def private_bytes() -> int:
    """Memory of this process that it shares with no other."""
    with open("/proc/self/smaps_rollup") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith("Private"))


def read(record):
    """A sample that has read its record."""
    return {"SUM": int(record["tokens_ids"].sum())}


def worker_memory(samples):
    """Which worker made this batch, and how much memory it has of its own."""
    return torch.tensor([os.getpid(), private_bytes()])


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/smaps_rollup"), reason="needs Linux")
def test_workers_stay_flat_over_100000_records():
    tokens = np.ones((1, 20), dtype=np.uint32)
    records = [
        {"image_id": str(k), "file_name": f"{k:012d}.jpg", "tokens_ids": tokens + k}
        for k in range(RECORDS)
    ]
    loader = build_xmodaler_train_loader(
        records,
        dataset_mapper=read,
        batch_size=500,
        num_workers=2,
        seed=0,
        collate_fn=worker_memory,
    )
    del records
    growth = {}
    for batch in loader:
        pid, size = batch.tolist()
        growth[pid] = (growth.get(pid, (size,))[0], size)
    assert len(growth) == 2
    # Kept as Python objects, the records cost each worker over 20 MB by the end of the epoch.
    assert all(last - first < 8 * 2**20 for first, last in growth.values()), growth
