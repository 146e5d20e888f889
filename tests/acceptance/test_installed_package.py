"""The package as pip installs it, used from a folder that is not the checkout."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USE = """
import xmodaler, xmodaler.engine, xmodaler.inference, xmodaler.evaluation.report
from pathlib import Path
from xmodaler.config import get_cfg
print(Path(xmodaler.__file__).resolve().parent, xmodaler.__version__, len(get_cfg().SOLVER) > 20)
from xmodaler import model_zoo
print(model_zoo.get_config_file("image_caption/updown"))
print(*model_zoo.list(), *{model_zoo.get_config(name).MODEL.DECODER for name in model_zoo.list()})
"""


@pytest.mark.slow
def test_install_and_import_from_elsewhere(tmp_path, environment):
    source, target = tmp_path / "source", tmp_path / "site"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")
    shutil.copytree(ROOT / "xmodaler", source / "xmodaler", ignore=ignored)
    shutil.copytree(ROOT / "configs", source / "configs")
    for name in ("setup.py", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    install = [*pip, "--no-build-isolation", "--target", str(target), str(source)]
    subprocess.run(install, check=True, env=environment, cwd=tmp_path, timeout=300)

    files = {path.relative_to(source) for path in (source / "xmodaler").rglob("*.*")}
    missing = [str(path) for path in sorted(files) if not (target / path).exists()]
    assert not missing, "files of the package that are not installed"

    environment = {**environment, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    package, config, zoo = done.stdout.splitlines()
    assert package.split()[0] == str(target / "xmodaler") and "True" in package
    assert Path(config).is_relative_to(target / "xmodaler") and Path(config).is_file()
    assert "video_caption/msrvtt/transformer" in zoo and "UpDownDecoder" in zoo
