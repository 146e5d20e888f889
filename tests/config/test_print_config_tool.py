"""The command line of tools/print_config.py."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "print_config.py"), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.parametrize("options", [["--opts"], []])
def test_it_prints_what_a_config_and_overrides_give(options):
    config = "configs/image_caption/updown/updown.yaml"
    overrides = [*options, "MODEL.UPDOWN.DROPOUT1", "0.25"]
    result = run("--key", "MODEL.UPDOWN", "--config-file", config, *overrides)
    assert result.returncode == 0, result.stderr
    assert "DROPOUT1: 0.25" in result.stdout and "SOLVER" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nope.yaml"], "error: Config file 'nope.yaml' does not exist\n"),
        (["--key", "SOLVR"], "error: Non-existent config key 'SOLVR'; did you mean 'SOLVER'?\n"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message):
    result = run(*arguments)
    assert (result.returncode, result.stderr, result.stdout) == (2, message, "")
