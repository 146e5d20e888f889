"""Every snippet of the README and of the documentation is executed.

How a fenced block is treated:

* ``python`` blocks of a page run in order in one namespace, in a scratch folder with
  ``data/shapes``.
* ``bash`` blocks run line by line (a trailing backslash continues a line); they must exit with 0.
* ``yaml`` blocks must load as a config on top of the defaults.
* ``<!-- snippet: file NAME -->`` before a block writes it to NAME instead of running it.
* ``<!-- snippet: parse -->`` before a ``bash`` block only checks that the command line is
  understood, for commands that need several machines or GPUs.
* ``console`` and ``text`` blocks are not run.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(
    r"(?:<!-- snippet: (?P<marker>[^>]+?) -->\s*\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```",
    re.MULTILINE | re.DOTALL,
)
EXECUTED = ("python", "bash", "yaml")


@dataclass
class Snippet:
    """One fenced block of a page."""

    language: str
    code: str
    marker: str
    line: int


def read_snippets(page: Path) -> list[Snippet]:
    """The blocks of `page` that the tests execute, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(
            match["language"],
            match["code"],
            (match["marker"] or "").strip(),
            text[: match.start("code")].count("\n"),
        )
        for match in FENCE.finditer(text)
        if match["language"] in EXECUTED or match["marker"]
    ]


def command_lines(code: str) -> list[str]:
    """The shell commands of a bash block, continuation lines joined, comments dropped."""
    joined = code.replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip() and not line.startswith("#")]


def run_command(command: str, folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    result = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, f"$ {command}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"


def parse_command(command: str) -> None:
    """Checks that `tools/train_net.py` understands the flags of `command`."""
    from xmodaler.engine import default_argument_parser

    words = shlex.split(command)
    start = next(i for i, word in enumerate(words) if word.endswith("train_net.py"))
    default_argument_parser().parse_args(words[start + 1 :])


def load_yaml(code: str, folder: Path) -> None:
    from xmodaler.config import get_cfg
    from xmodaler.modeling import add_config

    path = folder / "snippet.yaml"
    path.write_text(code, encoding="utf-8")
    cfg = get_cfg()
    add_config(cfg, cfg.load_from_file_tmp(str(path)))
    cfg.merge_from_file(str(path))


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small generated data set that every page shares (read only)."""
    from xmodaler.datasets.synthetic import make_shapes

    folder = tmp_path_factory.mktemp("docs") / "shapes"
    make_shapes(str(folder), size=80, seed=1, videos=10, x2vlm=True)
    return folder


@pytest.fixture
def workspace(tmp_path: Path, shapes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scratch folder that looks like a checkout beside its data."""
    for name in ("configs", "tools", "docs"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "shapes").symlink_to(shapes_folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def prepare_readme(folder: Path) -> None:
    """What the README takes for granted: a captioner (hardly trained here) and a picture."""
    run_command(
        "python tools/train_net.py --config-file configs/shapes/updown.yaml SOLVER.MAX_ITER 2 "
        "DATALOADER.NUM_WORKERS 0 DATASETS.VAL \"''\" SOLVER.BEST_METRIC \"''\" "
        "OUTPUT_DIR output/quickstart",
        folder,
    )
    picture = next((folder / "data" / "shapes" / "images" / "test").glob("*.png"))
    shutil.copy(picture, folder / "your.png")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if read_snippets(page)],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_page_snippets_run(page: Path, workspace: Path) -> None:
    namespace: dict = {"__name__": "snippet"}
    if page.name == "README.md":
        prepare_readme(workspace)
    for snippet in read_snippets(page):
        if snippet.marker.startswith("file "):
            target = workspace / snippet.marker.removeprefix("file ").strip()
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(snippet.code, encoding="utf-8")
        elif snippet.language == "python":
            code = "\n" * snippet.line + snippet.code  # line numbers of the page in tracebacks
            exec(compile(code, str(page), "exec"), namespace)
        elif snippet.language == "yaml":
            load_yaml(snippet.code, workspace)
        else:
            run = (
                parse_command if snippet.marker == "parse" else lambda c: run_command(c, workspace)
            )
            for command in command_lines(snippet.code):
                run(command)


def test_links_between_pages_resolve() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)}: {target}")
    assert not broken, broken


def test_readme_commands_are_makefile_targets() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = re.findall(r"^(?:\$ )?make (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert {"test", "quickstart"} <= set(commands) <= targets
