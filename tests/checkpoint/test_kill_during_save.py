"""A process killed at any moment of a save leaves a complete checkpoint behind."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from xmodaler.checkpoint import XmodalerCheckpointer
from xmodaler.checkpoint.files import check_complete

SAVER = """
import sys, torch
from xmodaler.checkpoint import PeriodicEpochCheckpointer, XmodalerCheckpointer
torch.set_num_threads(1)
model = torch.nn.Linear(500, 500)
checkpointer = XmodalerCheckpointer(model, sys.argv[1])
start = checkpointer.resume_or_load("", resume=True).get("iteration", -1) + 1
periodic = PeriodicEpochCheckpointer(checkpointer, 1, max_to_keep=2)
print("ready", start, flush=True)
for iteration in range(start, 10**9):
    with torch.no_grad():
        model.weight.fill_(iteration)
    periodic.step(iteration=iteration, epoch=iteration)
"""


@pytest.mark.slow
def test_kill_at_random_moments(tmp_path):
    generator = random.Random(0)
    reached = -1
    for _ in range(8):
        process = subprocess.Popen(
            [sys.executable, "-c", SAVER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        try:
            word, start = process.stdout.readline().split()
            assert word == "ready" and int(start) == reached + 1
            time.sleep(generator.uniform(0.05, 0.4))
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        if not any(name.endswith(".pth") for name in os.listdir(tmp_path)):
            continue
        model = nn.Linear(500, 500)
        checkpointer = XmodalerCheckpointer(model, str(tmp_path), save_to_disk=False)
        for path in checkpointer.get_all_checkpoint_files():
            check_complete(path)
        iteration = checkpointer.resume_or_load("", resume=True)["iteration"]
        assert iteration >= reached
        assert torch.all(model.weight == iteration)
        reached = iteration
    assert reached > 0
    # At most the files that are kept, one whose predecessor was not yet deleted, and one leftover.
    assert len([n for n in os.listdir(tmp_path) if n != "last_checkpoint"]) <= 4
