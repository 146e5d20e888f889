"""A run killed at any moment and resumed ends like one that never stopped, bit for bit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("kill_loop.py")


def load(path):
    return torch.load(path, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize(("num_workers", "seed"), [(0, 1), (0, 2), (2, 3)])
def test_killed_run_ends_like_an_undisturbed_one(tmp_path, toy, environment, num_workers, seed):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "runs"), str(num_workers), str(seed)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"kills: (\d+)", done.stdout).group(1)) >= 3, done.stdout

    whole, killed = tmp_path / "runs" / "whole", tmp_path / "runs" / "killed"
    for name in ("model_final.pth", "model_best.pth"):
        expected, found = load(whole / name), load(killed / name)
        assert toy.differences(expected, found) == []
    trainer = load(whole / "model_final.pth")["trainer"]
    assert {"ema", "optimizer", "scheduler", "rng", "ss_prob", "batches", "hooks"} <= set(trainer)
    assert trainer["ss_prob"] > 0
    assert trainer["hooks"]["BestCheckpointer"]["best"] is not None

    def kept(folder):
        return sorted(path.name for path in folder.glob("*.pth"))

    assert kept(killed) == kept(whole)
    assert (killed / "last_checkpoint").read_text() == "model_final.pth"
    # Half-written checkpoints are cleared away by the next sitting.
    assert not list(killed.glob(".*.pth.*.tmp"))

    lines = [json.loads(line) for line in (killed / "metrics.json").read_text().splitlines()]
    trained = [line["iteration"] for line in lines if "total_loss" in line]
    assert trained == sorted(set(trained))
    # The line of an iteration is lost if the kill comes between its checkpoint and its line.
    assert trained[-1] >= trainer["iteration"] - 1
