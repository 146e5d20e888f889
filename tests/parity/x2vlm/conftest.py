"""Fixtures of X²-VLM: ``x2vlm/<name>/``.

``XMODALER_PARITY_DIR`` names the folder above; a test that asks for ``fixture`` runs on every
folder whose name begins with the ``FAMILY`` of its module.
"""

import importlib.util
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


def _captioner_fixtures() -> Any:
    """The loader of the folder above, which pytest does not let a conftest import by name."""
    path = Path(__file__).resolve().parents[1] / "conftest.py"
    spec = importlib.util.spec_from_file_location("parity_fixtures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def x2vlm_root() -> Path:
    """``x2vlm/`` of the folder that this run uses, or the folder itself."""
    root = _captioner_fixtures().parity_root()
    return root / "x2vlm" if (root / "x2vlm").is_dir() else root


def fixture_folders(family: str) -> list[Path]:
    """The fixture folders whose name begins with ``family``."""
    return [path.parent for path in sorted(x2vlm_root().glob(f"{family}*/meta.json"))]


@dataclass
class Fixture:
    """One folder; its files are read when they are asked for."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    def json(self, name: str) -> Any:
        """Contents of a JSON file."""
        return json.loads((self.folder / name).read_text(encoding="utf-8"))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Contents of a safetensors file."""
        return load_file(str(self.folder / f"{name}.safetensors"))

    @cached_property
    def config(self) -> dict[str, Any]:
        return self.json("config.json")

    @cached_property
    def meta(self) -> dict[str, Any]:
        return self.json("meta.json")

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        return self.tensors("weights")

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        return self.tensors("inputs")

    @cached_property
    def expected(self) -> dict[str, Tensor]:
        return self.tensors("expected")

    def below(self, prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors below a prefix, by the rest of their name."""
        return {
            key.removeprefix(prefix): value
            for key, value in tensors.items()
            if key.startswith(prefix)
        }


def assert_close(found: Tensor, expected: Tensor, what: str) -> None:
    """Within the recommended tolerance, or a message that says what differs."""
    torch.testing.assert_close(
        found.detach().float(), expected.float(), **TOLERANCE, msg=lambda text: f"{what}: {text}"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for ``fixture`` on the folders of its family."""
    if "fixture" in metafunc.fixturenames:
        family = getattr(metafunc.module, "FAMILY", "")
        folders = fixture_folders(family)
        absent = pytest.mark.skip(reason=f"no fixtures '{family}*' under {x2vlm_root()}")
        values = folders or [pytest.param(None, marks=absent)]
        ids = [folder.name for folder in folders] or ["absent"]
        metafunc.parametrize("fixture", values, ids=ids, indirect=True, scope="module")


@pytest.fixture(scope="module")
def fixture(request: pytest.FixtureRequest) -> Fixture:
    """A fixture folder."""
    return Fixture(request.param)


@pytest.fixture(scope="session")
def close() -> Any:
    """:func:`assert_close`."""
    return assert_close


@pytest.fixture(scope="session")
def load_fixture() -> Any:
    """A fixture by its name; the test is skipped where it is absent."""

    def load(name: str) -> Fixture:
        folder = x2vlm_root() / name
        if not folder.is_dir():
            pytest.skip(f"no {folder}")
        return Fixture(folder)

    return load
