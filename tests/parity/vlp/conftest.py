"""Fixtures of vision-language pre-training and understanding: ``vlp/<model>-<task>/``.

A test that asks for ``model_task`` runs on every folder whose name begins with the ``FAMILY`` of
its module (all folders without one). ``load_task`` loads a folder by name.
"""

import importlib.util
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from xmodaler.config import CfgNode, kfg

VISUAL = (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.ATT_MASKS)
"""What a batch may hold once per image."""

PATHS = (
    "DATALOADER.ANNO_FOLDER",
    "DATALOADER.FEATS_FOLDER",
    "INFERENCE.TEST_ANNFILE",
    "INFERENCE.VAL_ANNFILE",
    "MODEL.PRETRAINING.MODEL_NAME",
    "SCORER.CIDER_CACHED",
    "SCORER.GT_PATH",
)
"""Settings that may be paths relative to the folder of a fixture."""


def _captioner_fixtures() -> Any:
    """The loader of the folder above, which pytest does not let a conftest import by name."""
    path = Path(__file__).resolve().parents[1] / "conftest.py"
    spec = importlib.util.spec_from_file_location("parity_fixtures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


common = _captioner_fixtures()


def vlp_root() -> Path:
    """Where the fixtures are: ``vlp/`` of the folder that this run uses, or the folder itself."""
    root = common.parity_root()
    return root / "vlp" if (root / "vlp").is_dir() else root


def task_folders(family: str = "") -> list[Path]:
    """The model-task folders whose name begins with ``family``."""
    folders = (path.parent for path in sorted(vlp_root().glob(f"{family}*-*/config.yaml")))
    return [folder for folder in folders if (folder / "meta.json").is_file()]


@dataclass
class ModelTask:
    """One fixture folder and the model built from it.

    Attributes:
        folder: Where it lies.
        cfg: Its config, merged, paths made absolute.
        model: The model in eval mode with the fixture's weights.
        expected: Tensors of ``expected.safetensors``.
        meta: Contents of ``meta.json``.
    """

    folder: Path
    cfg: CfgNode
    model: torch.nn.Module
    expected: dict[str, Tensor]
    meta: dict[str, Any]

    @property
    def task(self) -> str:
        """For example ``tden-vqa``."""
        return self.meta["task"]

    def inputs(self, name: str = "inputs") -> dict[str, Any]:
        """The batch of ``<name>.safetensors`` with its IDS, as the reference collated it."""
        batch: dict[str, Any] = load_file(str(self.folder / f"{name}.safetensors"))
        if self.meta["ids"].get(name) is not None:
            batch[kfg.IDS] = list(self.meta["ids"][name])
        return batch

    def once_per_image(self, name: str = "inputs") -> dict[str, Any]:
        """The batch with visual tensors once per image where rows share one."""
        batch = self.inputs(name)
        ids = batch.get(kfg.IDS)
        if ids is None:
            return batch
        groups = len(ids) // len(dict.fromkeys(ids))
        if groups < 2 or ids[:groups] != ids[:1] * groups:
            return batch
        return {key: batch[key][::groups] if key in VISUAL else batch[key] for key in batch}

    def below(self, prefix: str) -> dict[str, Tensor]:
        """The expected tensors below a prefix, by the rest of their name."""
        return {
            key.removeprefix(prefix): value
            for key, value in self.expected.items()
            if key.startswith(prefix)
        }

    def config(self, name: str) -> CfgNode:
        """Another config of the folder."""
        return absolute(common.read_config(self.folder, name), self.folder)

    def full_size(self) -> dict[str, list[int]]:
        """Name -> shape of every weight at released size."""
        return json.loads((self.folder / "keys_full.json").read_text())


def absolute(cfg: CfgNode, folder: Path) -> CfgNode:
    """The config with relative paths that exist beside it made absolute."""
    for setting in PATHS:
        *nodes, leaf = setting.split(".")
        node = cfg
        for part in nodes:
            node = node[part]
        if node[leaf] and (folder / node[leaf]).exists():
            node[leaf] = str((folder / node[leaf]).resolve())
    return cfg


def load_model_task(folder: Path) -> ModelTask:
    """Build the model of a fixture and load its weights."""
    from xmodaler.checkpoint import XmodalerCheckpointer
    from xmodaler.modeling import build_model

    cfg = absolute(common.read_config(folder), folder)
    model = build_model(cfg)
    XmodalerCheckpointer(model).load(str(folder / "weights.safetensors"))
    return ModelTask(
        folder=folder,
        cfg=cfg,
        model=model.eval(),
        expected=load_file(str(folder / "expected.safetensors")),
        meta=json.loads((folder / "meta.json").read_text()),
    )


def gathered(outputs: dict[str, Any], key: str) -> Tensor | None:
    """What ``<key>``, ``<key>/<layer>`` or ``<key>/last`` of a fixture names in the outputs."""
    name, _, entry = key.partition("/")
    value = outputs.get(name)
    if value is None or not entry:
        return value
    layers = value if isinstance(value, (list, tuple)) else [value]
    return layers[-1 if entry == "last" else int(entry)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for ``model_task`` on every folder of its family."""
    if "model_task" in metafunc.fixturenames:
        folders = task_folders(getattr(metafunc.module, "FAMILY", ""))
        absent = pytest.mark.skip(reason=f"no fixtures under {vlp_root()}")
        values: Iterable[Any] = folders or [pytest.param(None, marks=absent)]
        ids = [folder.name for folder in folders] or ["absent"]
        metafunc.parametrize("model_task", values, ids=ids, indirect=True, scope="module")


@pytest.fixture(scope="module")
def model_task(request: pytest.FixtureRequest) -> ModelTask:
    """A model-task fixture with its model."""
    return load_model_task(request.param)


@pytest.fixture(scope="module")
def load_task() -> Callable[[str], ModelTask]:
    """Gives the fixture of a folder name, loaded afresh; skips where there is none."""

    def load(name: str) -> ModelTask:
        folder = vlp_root() / name
        if not (folder / "config.yaml").is_file():
            pytest.skip(f"no {folder}")
        return load_model_task(folder)

    return load


@pytest.fixture(scope="session")
def vlp_shared() -> Path:
    """The folder of fixtures that need no model."""
    folder = vlp_root() / "_shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder


@pytest.fixture(scope="session")
def find_output() -> Callable[[dict[str, Any], str], Tensor | None]:
    """Gives :func:`gathered`."""
    return gathered
