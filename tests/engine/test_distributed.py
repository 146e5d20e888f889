"""Several processes: launch, torchrun, equality with one process, shared evaluation."""

import importlib
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from xmodaler.engine import launch as launch_function
from xmodaler.engine.launch import _place_from_slurm, _place_from_torchrun, first_host
from xmodaler.utils.errors import UserError

QUIET = {
    "DATASETS__TRAIN": "QuietToyDataset",
    "MODEL__PRED_DROPOUT": 0.0,
    "SCHEDULED_SAMPLING__MAX_PROB": 0.0,
    "SOLVER__GRAD_CLIP": 5.0,
}
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port")


def finish(process, timeout=180):
    output, _ = process.communicate(timeout=timeout)
    return output


def losses_of(folder):
    lines = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    return [line["total_loss"] for line in lines if "total_loss" in line]


def weights_of(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


def free_port():
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.mark.slow
@pytest.mark.parametrize("starter", ["launch", "torchrun"])
def test_two_processes_train_like_one(train_net, tmp_path, starter):
    """Same loss curve and weights as one process with the same global batch; no result twice."""
    one = train_net(tmp_path / "one", DATALOADER__TRAIN_BATCH_SIZE=8, **QUIET)
    flags, launcher = ["--num-gpus", "2", "--dist-url", "auto"], ()
    if starter == "torchrun":
        flags, launcher = [], (*TORCHRUN, free_port())
    assert one.wait(timeout=180) == 0, finish(one)
    # WRITE_PERIOD 2: losses of several iterations travel together.
    changes = {**QUIET, "SOLVER__WRITE_PERIOD": 2, "MODEL__USE_EMA": True}
    two = train_net(
        tmp_path / "two", *flags, launcher=launcher, DATALOADER__TRAIN_BATCH_SIZE=4, **changes
    )
    assert two.wait(timeout=180) == 0, finish(two)

    expected, found = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-5, msg=name)
    assert losses_of(tmp_path / "two") == pytest.approx(losses_of(tmp_path / "one")[1::2], abs=1e-4)
    epoch, ids = (tmp_path / "two" / "evaluated.txt").read_text().splitlines()[0].split()
    assert epoch == "1"
    assert [int(i) for i in ids.split(",")] == list(range(200, 207))
    log = (tmp_path / "two" / "log.txt").read_text()
    assert "World size: 2" in log
    assert (tmp_path / "two" / "log.txt.rank1").exists()
    state = torch.load(tmp_path / "two" / "model_final.pth", weights_only=True)["trainer"]
    assert len(state["rng"]) == 2


@pytest.mark.slow
def test_two_processes_resume_bit_for_bit(train_net, toy, tmp_path):
    """SIGTERM to the parent: both save together, and the resumed run ends like a whole one."""
    flags = ("--num-gpus", "2", "--dist-url", "auto")
    changes = {"SOLVER__EPOCH": 60, "SOLVER__EVAL_PERIOD": 20, "SOLVER__CHECKPOINT_PERIOD": 100}
    process = train_net(tmp_path / "parts", *flags, **changes)
    metrics = tmp_path / "parts" / "metrics.json"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 1000):
        assert time.monotonic() < deadline and process.poll() is None, finish(process)
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output = finish(process)
    assert process.returncode == 143, output
    assert "SIGTERM received" in output
    saved = (tmp_path / "parts" / "last_checkpoint").read_text()
    assert re.fullmatch(r"model_Epoch_\d{5}_Iter_\d{7}\.pth", saved)

    resumed = train_net(tmp_path / "parts", "--resume", *flags, **changes)
    whole = train_net(tmp_path / "whole", *flags, **changes)
    assert resumed.wait(timeout=180) == 0, finish(resumed)
    assert whole.wait(timeout=180) == 0, finish(whole)
    expected, found = (
        torch.load(tmp_path / name / "model_final.pth", weights_only=True)
        for name in ("whole", "parts")
    )
    assert toy.differences(expected, found) == []


@pytest.mark.slow
def test_mistake_in_a_spawned_process_is_one_sentence(train_net, tmp_path):
    process = train_net(
        tmp_path / "run", "--num-gpus", "2", "--dist-url", "auto", LOSSES__NAMES=["CrossEntropi"]
    )
    output = finish(process)
    assert process.returncode == 2, output
    assert output.count("error:") == 1
    assert "did you mean 'CrossEntropy'" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_launch_on_processors(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    main = importlib.import_module("launch_main").main
    launch_function(main, 2, dist_url="auto", args=(tmp_path, 42), device="cpu")
    everybody, results = json.loads((tmp_path / "ranks.json").read_text())
    assert [(rank, local) for rank, local, _ in everybody] == [(0, 0), (1, 1)]
    assert len({pid for _, _, pid in everybody} | {os.getpid()}) == 3
    assert results == [{"id": i} for i in range(5)]
    with pytest.raises(UserError, match="value is 41"):
        launch_function(main, 2, dist_url="auto", args=(tmp_path, 41), device="cpu")
    with pytest.raises(RuntimeError, match=r"(?s)failed with exit codes.*ZeroDivisionError"):
        launch_function(main, 2, dist_url="auto", args=(tmp_path, 0), device="cpu")


def test_one_process_is_called_directly():
    assert launch_function(lambda a, b: a + b, 1, args=(1, 2)) == 3


def test_several_machines_need_an_address():
    with pytest.raises(UserError, match="--dist-url tcp://HOST:PORT"):
        launch_function(print, 1, num_machines=2, dist_url="auto", device="cpu")


def test_more_processes_than_devices_is_explained():
    if torch.cuda.is_available():
        pytest.skip("has CUDA devices")
    with pytest.raises(UserError, match="no CUDA device"):
        launch_function(print, 2, dist_url="auto", device="cuda")


def test_place_from_torchrun(monkeypatch):
    assert _place_from_torchrun() is None
    values = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    for name, value in {**values, "MASTER_ADDR": "host", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    place = _place_from_torchrun()
    assert (place.rank, place.world_size, place.local_rank, place.local_size) == (3, 4, 1, 2)


def test_place_from_slurm(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("SLURM", "MASTER"))]:
        monkeypatch.delenv(name)
    values = {
        "SLURM_PROCID": "5",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_ID": "41234",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NODELIST": "gpu[011-012,20]",
        "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    # A shell in an allocation: no step of several tasks.
    assert _place_from_slurm() is None
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    place = _place_from_slurm()
    assert (place.rank, place.world_size, place.local_rank, place.local_size) == (5, 8, 1, 4)
    assert place.init_method == "tcp://gpu011:21234"
    monkeypatch.delenv("LOCAL_RANK")


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("gpu[003-005,9],cpu1", "gpu003"),
        ("a1,b2", "a1"),
        ("rack[1,3]-ib", "rack1-ib"),
        ("n[12]", "n12"),
    ],
)
def test_first_host_of_a_node_list(nodes, first):
    assert first_host(nodes) == first
