"""tools/train_net.py: its options, set-up of the output folder, signals, evaluation only."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from xmodaler.config import get_cfg
from xmodaler.engine import default_argument_parser, default_setup
from xmodaler.engine.running import import_modules
from xmodaler.engine.writers import truncate_metrics
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("A.B 1 C x", {"opts": ["A.B", "1", "C", "x"]}),
        ("--opts A.B 1", {"opts": ["A.B", "1"]}),
        ("A 1 --resume B 2", {"opts": ["A", "1", "B", "2"], "resume": True}),
        ("--opts A 1 --num-gpus 3 --eval-only", {"opts": ["A", "1"], "num_gpus": 3}),
        ("A -1 B -2e-3 --config-file=c.yaml", {"opts": ["A", "-1", "B", "-2e-3"]}),
        ("--import a --import b.py", {"imports": ["a", "b.py"], "opts": []}),
        (
            "--num-machines 3 --machine-rank 1 --dist-url tcp://h:1",
            {"num_machines": 3, "machine_rank": 1, "dist_url": "tcp://h:1"},
        ),
        ("", {"config_file": "", "resume": False, "eval_only": False, "num_gpus": 1}),
    ],
)
def test_options_may_stand_anywhere(line, expected):
    args = vars(default_argument_parser().parse_args(line.split()))
    assert {name: args[name] for name in expected} == expected


@pytest.mark.parametrize("line", ["A 1 B", "--bogus", "A 1 --resum"])
def test_bad_command_lines_are_refused(line, capsys):
    with pytest.raises(SystemExit) as caught:
        default_argument_parser().parse_args(line.split())
    assert caught.value.code == 2
    assert "error" in capsys.readouterr().err


def test_help_does_not_import_torch(environment):
    code = (
        "import runpy, sys; sys.argv = ['train_net.py', '--help']\n"
        f"try: runpy.run_path({str(ROOT / 'tools' / 'train_net.py')!r}, run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"--config-file" in done.stdout


def test_importing_the_engine_fills_the_registries(environment):
    code = (
        "import xmodaler.engine\n"
        "from xmodaler.engine.build import ENGINE_REGISTRY\n"
        "from xmodaler.datasets.build import DATASETS_REGISTRY\n"
        "from xmodaler.modeling.meta_arch import build\n"
        "from xmodaler.losses.build import LOSSES_REGISTRY\n"
        "from xmodaler.evaluation.build import EVALUATION_REGISTRY\n"
        "from xmodaler.optim.build import SOLVER_REGISTRY\n"
        "from xmodaler.lr_scheduler.build import LR_SCHEDULER_REGISTRY\n"
        "assert 'DefaultTrainer' in ENGINE_REGISTRY and 'MSCoCoDataset' in DATASETS_REGISTRY\n"
        "assert 'CrossEntropy' in LOSSES_REGISTRY and 'COCOEvaler' in EVALUATION_REGISTRY\n"
        "assert 'RnnAttEncoderDecoder' in build.META_ARCH_REGISTRY\n"
        "assert 'Adam' in SOLVER_REGISTRY and 'NoamLR' in LR_SCHEDULER_REGISTRY\n"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


@pytest.fixture
def seeded_cfg(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path / "a" / "b")
    cfg.SEED = 3
    cfg.INFERENCE.VOCAB = str(tmp_path / "words.txt")
    (tmp_path / "words.txt").write_text("red\nblue\n")
    handlers = {name: logging.getLogger(name).handlers[:] for name in ("xmodaler", "fvcore")}
    yield cfg
    torch.use_deterministic_algorithms(False)
    for name, before in handlers.items():
        logging.getLogger(name).handlers[:] = before


def test_default_setup_records_the_run(seeded_cfg):
    folder = Path(seeded_cfg.OUTPUT_DIR)
    default_setup(seeded_cfg, Namespace(config_file="", eval_only=False))
    first = torch.rand(3)
    assert (folder / "vocabulary.txt").read_text() == "red\nblue\n"
    written = get_cfg()
    written.merge_from_file(str(folder / "config.yaml"))
    assert written == seeded_cfg
    assert "Environment info" in (folder / "log.txt").read_text()
    default_setup(seeded_cfg, Namespace())
    assert torch.equal(torch.rand(3), first)


def test_evaluation_keeps_the_record_of_the_training(seeded_cfg):
    folder = Path(seeded_cfg.OUTPUT_DIR)
    default_setup(seeded_cfg, Namespace(eval_only=False))
    before = (folder / "config.yaml").read_text()
    seeded_cfg.DECODE_STRATEGY.BEAM_SIZE = 9
    default_setup(seeded_cfg, Namespace(eval_only=True))
    assert (folder / "config.yaml").read_text() == before


def test_deterministic_mode(seeded_cfg):
    seeded_cfg.DETERMINISTIC = True
    default_setup(seeded_cfg, Namespace())
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


def test_unwritable_output_folder_is_one_sentence(seeded_cfg, tmp_path):
    (tmp_path / "file").write_text("")
    seeded_cfg.OUTPUT_DIR = str(tmp_path / "file" / "out")
    with pytest.raises(UserError, match=r"OUTPUT_DIR '.*' cannot be written"):
        default_setup(seeded_cfg, Namespace())


def test_import_of_user_modules(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_parts_of_test.py").write_text("VALUE = 5\n")
    import_modules(["my_parts_of_test"])
    assert sys.modules.pop("my_parts_of_test").VALUE == 5
    import_modules([str(tmp_path / "my_parts_of_test.py")] * 2)
    assert sys.modules.pop("my_parts_of_test").VALUE == 5
    with pytest.raises(UserError, match="no module of this name"):
        import_modules(["no_such_module_anywhere"])
    with pytest.raises(UserError, match="no such file"):
        import_modules(["missing.py"])
    (tmp_path / "broken_parts_of_test.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        import_modules(["broken_parts_of_test"])


@pytest.mark.parametrize(
    ("content", "kept"),
    [
        ('{"iteration": 1}\n{"iteration": 2}\n{"iteration": 3}\n', [1, 2]),
        ('{"iteration": 1}\n{"iteration": 3}\n{"iteration": 2}\n', [1, 2]),
        ('{"iteration": 1}\n{"iteration": 2}\n{"itera', [1, 2]),
        ('{"iteration": 2}', [2]),
        ("", []),
    ],
)
def test_metrics_of_later_iterations_are_dropped(tmp_path, content, kept):
    path = tmp_path / "metrics.json"
    path.write_text(content)
    with open(path, "a") as writer:
        truncate_metrics(path, 2)
        writer.write('{"iteration": 9}\n')
    lines = [json.loads(line)["iteration"] for line in path.read_text().splitlines()]
    assert lines == [*kept, 9]
    truncate_metrics(tmp_path / "absent.json", 2)


@pytest.mark.slow
def test_train_then_evaluate_then_fail(train_net, tmp_path):
    """One training by the documented command lines, evaluation only, and a user's mistake."""
    process = train_net(tmp_path / "run", SOLVER__EPOCH=1)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    assert "Command Line Args:" in output
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "log.txt", "metrics.json", "vocabulary.txt", "model_final.pth"} <= names

    evaluation = train_net(
        tmp_path / "run",
        "--eval-only",
        "--opts",
        "MODEL.WEIGHTS",
        str(tmp_path / "run" / "model_final.pth"),
        DATASETS__TRAIN="NoSuchDataset",
    )
    mistake = train_net(tmp_path / "other", SOLVER__EPOHC=3)
    output, _ = evaluation.communicate(timeout=180)
    assert evaluation.returncode == 0, output
    lines = (tmp_path / "run" / "evaluated.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "-1"]
    output, _ = mistake.communicate(timeout=180)
    assert mistake.returncode == 2
    assert "error: " in output and "SOLVER.EPOCH" in output
    assert "Traceback" not in output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signum", "code", "num_workers"), [(signal.SIGTERM, 143, 2), (signal.SIGINT, 130, 0)]
)
def test_signal_saves_and_leaves(train_net, tmp_path, signum, code, num_workers):
    """Schedulers and terminals signal all processes, the loader's workers included."""
    process = train_net(
        tmp_path / "run",
        SOLVER__EPOCH=2000,
        SOLVER__EVAL_PERIOD=2000,
        DATALOADER__NUM_WORKERS=num_workers,
    )
    metrics = tmp_path / "run" / "metrics.json"
    deadline = time.monotonic() + 120
    while not (metrics.exists() and metrics.stat().st_size > 3000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signum)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert output.count(f"{signum.name} received") == 1
    last = (tmp_path / "run" / "last_checkpoint").read_text()
    saved = torch.load(tmp_path / "run" / last, weights_only=True)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    assert saved["trainer"]["iteration"] == lines[-1]["iteration"]
