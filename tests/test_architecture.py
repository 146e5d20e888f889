"""The house plan: rooms import from lower floors only, nothing is tied to CUDA, imports stay light.

The plan is read from the imports in the source, without running it.
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "xmodaler"

# Longest match wins: a room inside `modeling` has a floor of its own.
FLOORS = {
    "xmodaler.config": 0,
    "xmodaler.functional": 0,
    "xmodaler.utils": 0,
    "xmodaler.modeling.layers": 1,
    "xmodaler.modeling.vision": 1,
    "xmodaler.losses": 1,
    "xmodaler.scorer": 1,
    "xmodaler.optim": 1,
    "xmodaler.lr_scheduler": 1,
    "xmodaler.tokenization": 1,
    "xmodaler.checkpoint": 1,
    "xmodaler.modeling.embedding": 2,
    "xmodaler.modeling.encoder": 2,
    "xmodaler.modeling.attention": 2,
    "xmodaler.modeling.decoder": 2,
    "xmodaler.modeling.predictor": 2,
    "xmodaler.modeling.decode_strategy": 2,
    # Modules beside the stages that every stage may use.
    "xmodaler.modeling.selection": 1,
    "xmodaler.modeling.stage_keys": 1,
    "xmodaler.datasets": 2,
    "xmodaler.preprocessing": 2,
    "xmodaler.evaluation": 3,
    "xmodaler.modeling.meta_arch": 3,
    # The front door of the models: `from xmodaler.modeling import build_model, add_config`.
    "xmodaler.modeling": 3,
    # Configs by name, on top of the models' front door, for training and inference.
    "xmodaler.model_zoo": 3,
    "xmodaler.inference": 4,
    "xmodaler.engine": 4,
    "xmodaler.cli": 5,
}
HEAVY = ("torchvision", "transformers", "timm", "matplotlib")


def room_of(module):
    """The longest room name that a module lies in, or None for the package itself."""
    matches = [room for room in FLOORS if module == room or module.startswith(room + ".")]
    return max(matches, key=len, default=None)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path):
    """(imported module, line, whether only for type checkers) of every import of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    name = module_name(path)
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for_types = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            for_types.update(id(inner) for part in node.body for inner in ast.walk(part))
    for node in ast.walk(tree):
        typed = id(node) in for_types
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, typed
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, base] if base else above)
            for alias in node.names:
                # `from .build import X` imports build; `from . import build` does as well.
                target = f"{base}.{alias.name}"
                yield (target if _is_module(target) else base), node.lineno, typed


def _is_module(name):
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


SOURCES = sorted(PACKAGE.rglob("*.py"))
EDGES = [
    (path, room_of(module_name(path)), room_of(target), target, line)
    for path in SOURCES
    for target, line, typed in imports_of(path)
    if target.startswith("xmodaler") and not typed
]


def test_every_module_belongs_to_a_room():
    homeless = [
        str(path.relative_to(ROOT))
        for path in SOURCES
        if room_of(module_name(path)) is None and path != PACKAGE / "__init__.py"
    ]
    assert homeless == []


def test_rooms_import_from_their_own_or_lower_floors_only():
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {target}"
        for path, room, target_room, target, line in EDGES
        if room and target_room and FLOORS[target_room] > FLOORS[room]
    ]
    assert upward == []


def test_rooms_import_each_other_in_no_circle():
    graph = defaultdict(set)
    for _, room, target_room, _, _ in EDGES:
        # The doors of floor 0 stand open to each other: they are one library of small parts.
        if room and target_room and room != target_room and FLOORS[room] > 0:
            graph[room].add(target_room)
    assert _circle(graph) is None


def _circle(graph):
    state = {}

    def visit(room, path):
        if state.get(room) == "done":
            return None
        if room in path:
            return [*path[path.index(room) :], room]
        for target in sorted(graph.get(room, ())):
            found = visit(target, [*path, room])
            if found:
                return found
        state[room] = "done"
        return None

    for room in sorted(graph):
        found = visit(room, [])
        if found:
            return found
    return None


def test_modules_import_each_other_in_no_circle():
    graph = defaultdict(set)
    known = {module_name(path) for path in SOURCES}
    for path in SOURCES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        top_level = {
            node.lineno for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
        }
        name = module_name(path)
        for target, line, typed in imports_of(path):
            # A package that imports its own modules is how packages export names.
            is_own = target.startswith(name + ".") or name.startswith(target + ".")
            counts = target in known and target != name and line in top_level
            if counts and not (typed or is_own):
                graph[name].add(target)
    assert _circle(graph) is None


def test_nothing_is_tied_to_cuda():
    tied = re.compile(r"\.cuda\(\s*[^)]*\)|torch\.cuda\.\w*Tensor|device=[\"']cuda")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for folder in (PACKAGE, ROOT / "tools")
        for path in sorted(folder.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if tied.search(line)
    ]
    assert found == []


def loaded_by(statement):
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert result.returncode == 0, result.stderr
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("statement", "refused"),
    [
        ("import xmodaler", (*HEAVY, "torch", "numpy", "fvcore", "PIL")),
        ("from xmodaler.config import get_cfg; get_cfg()", (*HEAVY, "torch", "omegaconf")),
        ("import xmodaler.utils.arguments", (*HEAVY, "torch")),
        ("import xmodaler.functional", (*HEAVY, "PIL")),
        ("import xmodaler.utils.events, xmodaler.utils.logger", (*HEAVY, "tensorboard", "torch")),
    ],
)
def test_imports_stay_light(statement, refused):
    assert loaded_by(statement) & set(refused) == set()


def test_the_version_is_one_and_the_same():
    import xmodaler

    assert re.fullmatch(r"\d+\.\d+\.\d+", xmodaler.__version__)
    assert xmodaler.__version__ == "0.1.0"
