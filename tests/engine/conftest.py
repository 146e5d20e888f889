"""Fixtures of the engine's tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PARTS = Path(__file__).with_name("toy_parts.py")


@pytest.fixture(scope="session")
def toy():
    """The module of toy parts, registered once."""
    from xmodaler.engine.running import import_modules

    import_modules([str(PARTS)])
    return sys.modules["toy_parts"]


@pytest.fixture
def environment():
    """The environment of a subprocess: one thread, no place in somebody else's process group."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM", "MASTER"))}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        inherited.pop(name, None)
    path = os.pathsep.join(filter(None, [str(ROOT), inherited.get("PYTHONPATH")]))
    return {**inherited, "OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}


@pytest.fixture
def train_net(toy, environment):
    """Starts ``tools/train_net.py`` on the toy task; returns the process."""
    started = []

    def start(output_dir, *flags, launcher=(), **changes):
        command = [
            sys.executable,
            *launcher,
            str(ROOT / "tools" / "train_net.py"),
            "--import",
            str(PARTS),
            *flags,
            *toy.command_line(output_dir, **changes),
        ]
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=output_dir.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
