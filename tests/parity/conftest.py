"""Reference fixtures: folders with a config, weights, inputs and the numbers they must give.

``XMODALER_PARITY_DIR`` names the folder (it holds ``captioning/<model>/`` and
``captioning/_shared/``); the default is ``../shared/parity`` beside the repository, and the compact
copy in ``data/`` here where that is absent.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from xmodaler.config import CfgNode, get_cfg, kfg

HERE = Path(__file__).resolve().parent
# What has a row for every caption also in a batch with visual tensors once per image.
PER_CAPTION = {
    kfg.SS_PROB,
    kfg.G_TOKENS_IDS,
    kfg.G_TARGET_IDS,
    kfg.G_TOKENS_TYPE,
    kfg.TOKENS_MASKS,
    kfg.SEMANTICS_IDS,
    kfg.SEMANTICS_MASK,
    kfg.SEMANTICS_LABELS,
    kfg.SEMANTICS_MISS_LABELS,
}


def parity_root() -> Path:
    """The folder of fixtures that this run uses."""
    named = os.environ.get("XMODALER_PARITY_DIR")
    if named:
        return Path(named).resolve()
    beside = HERE.parents[2] / "shared" / "parity"
    return beside if beside.is_dir() else HERE / "data"


def captioning_root() -> Path:
    """Where the captioner fixtures are: ``captioning/`` of the folder, or the folder itself."""
    root = parity_root()
    return root / "captioning" if (root / "captioning").is_dir() else root


def captioner_folders() -> list[Path]:
    """Every captioner fixture."""
    return [path.parent for path in sorted(captioning_root().glob("*/config.yaml"))]


@dataclass
class Fixture:
    """One fixture folder and the model built from it.

    Attributes:
        folder: Where it lies.
        cfg: Its config, merged.
        model: The model in eval mode with the fixture's weights.
        expected: Tensors of ``expected.safetensors``.
        meta: Contents of ``meta.json``.
    """

    folder: Path
    cfg: CfgNode
    model: torch.nn.Module
    expected: dict[str, Tensor]
    meta: dict[str, Any]

    def inputs(self, stage: str) -> dict[str, Any]:
        """The batch of a stage, ``train`` or ``test``, as the reference collated it."""
        tensors = load_file(str(self.folder / "inputs.safetensors"))
        batch: dict[str, Any] = {
            key.split("/", 1)[1]: value
            for key, value in tensors.items()
            if key.startswith(f"{stage}/")
        }
        batch[kfg.IDS] = self.meta["ids"][stage]
        if stage == "train":
            batch[kfg.SS_PROB] = 0.0
        return batch

    def captions_per_image(self) -> int:
        """How often the training batch repeats every image."""
        ids = self.meta["ids"]["train"]
        return len(ids) // len(dict.fromkeys(ids))

    def once_per_image(self, stage: str = "train") -> dict[str, Any]:
        """The batch with visual tensors once per image instead of once per caption.

        Semantic words stay one row per caption, for each caption of an image got its own noise.
        """
        batch, repeats = self.inputs(stage), self.captions_per_image()
        return {
            key: value if key in PER_CAPTION else value[::repeats] for key, value in batch.items()
        }


def read_config(folder: Path, name: str = "config.yaml") -> CfgNode:
    """The config of a fixture by the documented two-pass recipe."""
    from xmodaler.modeling import add_config

    path = str(folder / name)
    cfg = get_cfg()
    add_config(cfg, cfg.load_from_file_tmp(path))
    cfg.merge_from_file(path)
    return cfg


def load_fixture(folder: Path) -> Fixture:
    """Build the model of a fixture and load its weights."""
    from xmodaler.checkpoint import XmodalerCheckpointer
    from xmodaler.modeling import build_model

    cfg = read_config(folder)
    model = build_model(cfg)
    XmodalerCheckpointer(model).load(str(folder / "weights.safetensors"))
    return Fixture(
        folder=folder,
        cfg=cfg,
        model=model.eval(),
        expected=load_file(str(folder / "expected.safetensors")),
        meta=json.loads((folder / "meta.json").read_text()),
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that asks for ``captioner`` on every captioner fixture."""
    if "captioner" in metafunc.fixturenames:
        folders = captioner_folders()
        absent = pytest.mark.skip(reason=f"no captioner fixtures under {parity_root()}")
        values = folders or [pytest.param(None, marks=absent)]
        ids = [folder.name for folder in folders] or ["absent"]
        metafunc.parametrize("captioner", values, ids=ids, indirect=True, scope="module")


@pytest.fixture(scope="module")
def captioner(request: pytest.FixtureRequest) -> Fixture:
    """A captioner fixture with its model."""
    return load_fixture(request.param)


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """The folder of model-free fixtures."""
    folder = captioning_root() / "_shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    return folder
