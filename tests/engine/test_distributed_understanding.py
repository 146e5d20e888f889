"""Models of understanding in two processes: training like one, evaluation without duplicates."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from xmodaler.engine.running import import_modules

ROOT = Path(__file__).resolve().parents[2]
PARTS = Path(__file__).with_name("toy_understanding.py")
TWO = ("--num-gpus", "2", "--dist-url", "auto")
QUIET = {
    "MODEL__BERT__HIDDEN_DROPOUT_PROB": 0.0,
    "MODEL__BERT__INTERMEDIATE_DROP": 0.0,
    "MODEL__BERT__FFN_DROPOUT_PROB": 0.0,
    "MODEL__BERT__ATTENTION_PROBS_DROPOUT_PROB": 0.0,
    "MODEL__TOKEN_EMBED__DROPOUT": 0.0,
    "MODEL__VISUAL_EMBED__DROPOUT": 0.0,
    "SOLVER__BASE_LR": 0.001,
    "SOLVER__EPS": 0.001,
}


@pytest.fixture(scope="module")
def tasks(toy):
    """The module of toy tasks, registered once."""
    import_modules([str(PARTS)])
    return sys.modules["toy_understanding"]


@pytest.fixture
def train_net(tasks, environment, tmp_path):
    """Runs ``tools/train_net.py`` on a toy task; returns what it printed."""

    def run(task, name, *flags, **changes):
        command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--import", str(PARTS)]
        command += [*flags, *tasks.command_line(task, tmp_path / name, **changes)]
        done = subprocess.run(
            command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def weights_of(folder):
    return torch.load(folder / "model_final.pth", weights_only=True)["model"]


@pytest.mark.slow
@pytest.mark.parametrize("task", ["tden-vqa", "uniter-vqa"])
def test_two_processes_train_a_classifier_like_one(train_net, tmp_path, task):
    changes = {
        **QUIET,
        "DATASETS__TRAIN": "QuietToyAnswers",
        "MODEL__MM_PREDICTOR__POOLER_DROPOUT": 0.0,
    }
    if task == "uniter-vqa":
        del changes["MODEL__MM_PREDICTOR__POOLER_DROPOUT"]
    train_net(task, "one", DATALOADER__TRAIN_BATCH_SIZE=8, **changes)
    train_net(task, "two", *TWO, DATALOADER__TRAIN_BATCH_SIZE=4, **changes)
    expected, found = weights_of(tmp_path / "one"), weights_of(tmp_path / "two")
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def metrics_of(folder):
    """The lines ``name: number`` of the log after the last evaluation's banner."""
    log = (folder / "log.txt").read_text()
    last = log[log.rindex("#####") :]
    return dict(re.findall(r": ([^:\n]+): (-?[\d.]+)\n", last))


@pytest.mark.slow
@pytest.mark.parametrize("task", ["tden-vcr", "tden-retrieval", "uniter-retrieval"])
def test_two_processes_evaluate_like_one(train_net, tmp_path, task):
    """After training in two; the running statistics are those that the checkpoint holds."""
    train_net(task, "two", *TWO, DATALOADER__TRAIN_BATCH_SIZE=2, DATALOADER__TEST_BATCH_SIZE=2)
    in_two = metrics_of(tmp_path / "two")
    weights = {"MODEL__WEIGHTS": str(tmp_path / "two" / "model_final.pth")}
    train_net(task, "one", "--eval-only", **weights)
    assert len(in_two) >= 3
    assert metrics_of(tmp_path / "one") == in_two


@pytest.mark.slow
@pytest.mark.parametrize("family", ["tden", "uniter"])
def test_pretraining_goes_over_to_fine_tuning(tasks, environment, tmp_path, family):
    """A recipe in one command: the second training, which learns nothing, has the weights."""
    names = (f"{family}-pretrain", f"{family}-retrieval")
    for name in names:
        (tmp_path / f"{name}.yaml").write_text(tasks.config_of(name, "").dump())
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--import", str(PARTS)]
    command += ["--config-file", f"{names[0]}.yaml", "--then", f"{names[1]}.yaml"]
    command += ["OUTPUT_DIR", str(tmp_path / "recipe"), "2:SOLVER.BASE_LR", "0.0"]
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, second = (
        weights_of(tmp_path / "recipe" / f"{number}_{name}") for number, name in enumerate(names, 1)
    )
    heads = ("predictor.pooler.dense.weight", "predictor.cls.weight")
    for name, tensor in second.items():
        if "running" in name or "batches" in name or name.startswith("predictor."):
            continue
        assert torch.equal(first[name], tensor), name
    if family == "uniter":
        # The head of retrieval begins as the one that told matches.
        assert torch.equal(second[heads[0]], first["itm_predictor.pooler.dense.weight"])
        assert torch.equal(second[heads[1]], first["itm_predictor.is_match_cls.weight"][:1])
