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


def model_config(fixture: Fixture, architecture: str, **changes: Any) -> Any:
    """Our config of the model that a fixture's ``config.json`` describes.

    Args:
        fixture: The folder.
        architecture: MODEL.META_ARCHITECTURE.
        **changes: Further settings, ``MODEL__X2VLM__NUM_LABELS=3``.
    """
    from xmodaler.config import get_cfg
    from xmodaler.modeling import add_config

    theirs, text = fixture.config["model"], fixture.config["text_encoder_config"]
    vision = fixture.config["vision"]
    is_split = "cross_encoder_config" in fixture.config
    is_roberta = text["model_type"] != "bert"
    layers = theirs["text_num_hidden_layers"]
    text_layers = layers if is_split else theirs["text_fusion_start_at"]
    fusion_layers = theirs["cross_num_hidden_layers"] if is_split else layers - text_layers
    cfg = get_cfg()
    cfg.MODEL.META_ARCHITECTURE = architecture
    cfg.MODEL.ENCODER = "TextFusionEncoder"
    cfg.MODEL.VISUAL_EMBED.NAME = "VisionTowerEmbedding"
    cfg.MODEL.TOKEN_EMBED.NAME = "TokenBaseEmbedding"
    has_words = architecture in ("X2VLMPretrain", "X2VLMCaptioner")
    cfg.MODEL.PREDICTOR = "BertPredictionHead" if has_words else ""
    cfg.DECODE_STRATEGY.NAME = ""
    add_config(cfg, cfg)
    settings = {
        "MODEL.DEVICE": "cpu",
        "MODEL.VOCAB_SIZE": text["vocab_size"],
        "MODEL.MAX_SEQ_LEN": theirs["max_tokens"],
        "DATALOADER.IMAGE_SIZE": theirs["image_res"],
        "MODEL.VISION.PATCH_SIZE": vision["patch"],
        "MODEL.VISION.WIDTH": vision["width"],
        "MODEL.VISION.LAYERS": vision["layers"],
        "MODEL.VISION.HEADS": vision["heads"],
        "MODEL.VISION.MLP_RATIO": float(vision["mlp_ratio"]),
        "MODEL.VISION.FRAME_POSITIONS": theirs.get("frame_len", 0),
        "MODEL.TOKEN_EMBED.DIM": text["hidden_size"],
        "MODEL.TOKEN_EMBED.USE_NORM": True,
        "MODEL.TOKEN_EMBED.NORM_EPS": text["layer_norm_eps"],
        "MODEL.TOKEN_EMBED.PADDING_IDX": text["pad_token_id"],
        "MODEL.TOKEN_EMBED.POSITION": "RobertaEncoding" if is_roberta else "NNEmbeddingEncoding",
        "MODEL.TOKEN_EMBED.POSITION_MAX_LEN": text["max_position_embeddings"],
        "MODEL.TOKEN_EMBED.TYPE_VOCAB_SIZE": text["type_vocab_size"],
        "MODEL.TOKEN_EMBED.DROPOUT": text["hidden_dropout_prob"],
        "MODEL.BERT.HIDDEN_SIZE": text["hidden_size"],
        "MODEL.BERT.NUM_ATTENTION_HEADS": text["num_attention_heads"],
        "MODEL.BERT.INTERMEDIATE_SIZE": text["intermediate_size"],
        "MODEL.BERT.HIDDEN_ACT": text["hidden_act"],
        "MODEL.BERT.NUM_HIDDEN_LAYERS": text_layers,
        "MODEL.FUSION.LAYERS": fusion_layers,
        "MODEL.FUSION.MEMORY_WIDTH": vision["width"],
        "MODEL.FUSION.TEXT_NORM_EPS": text["layer_norm_eps"],
        "MODEL.X2VLM.EMBED_DIM": theirs["embed_dim"],
        "MODEL.X2VLM.TEMPERATURE": theirs["temp"],
        "MODEL.X2VLM.IMAGE_BOXES": theirs.get("calc_image_bbox_loss", False),
        "MODEL.X2VLM.TIE_WORDS": not is_split,
        **{key.replace("__", "."): value for key, value in changes.items()},
    }
    cfg.merge_from_list([part for pair in settings.items() for part in pair])
    return cfg


def load_model(
    fixture: Fixture, architecture: str, weights: Any = None, partial: bool = False, **changes: Any
) -> torch.nn.Module:
    """The model of a fixture in eval mode, with all of its weights.

    Args:
        fixture: The folder.
        architecture: MODEL.META_ARCHITECTURE.
        weights: Released weights to use in place of the folder's.
        partial: The weights are those of a part of the model alone.
        **changes: As for :func:`model_config`.
    """
    from xmodaler.checkpoint.x2vlm import translate_x2vlm
    from xmodaler.modeling import build_model

    cfg = model_config(fixture, architecture, **changes)
    model = build_model(cfg)
    layers = cfg.MODEL.BERT.NUM_HIDDEN_LAYERS
    state = translate_x2vlm(weights or fixture.weights, model.state_dict(), layers)
    found = model.load_state_dict(state, strict=not partial)
    assert not found.unexpected_keys
    # The fixtures hold pixels that are normalised already.
    model.visual_embed.pixels = lambda images: images
    return model.eval()


def check_gradients(
    model: torch.nn.Module, fixture: Fixture, tag: str, skip: tuple[str, ...] = ()
) -> None:
    """Norm and weighted sum of the gradient of every released parameter."""
    from xmodaler.checkpoint.x2vlm import our_name

    prefix = f"{tag}/" if tag else ""
    names = fixture.meta["grad_names"]
    names = names[tag or next(iter(names))] if isinstance(names, dict) else names
    gradients = dict(model.named_parameters(remove_duplicate=False))
    layers = len(model.encoder.text_layers)
    norms, dots = (fixture.expected[f"{prefix}grad_{kind}"] for kind in ("norm", "dot"))
    for name, norm, dot in zip(names, norms, dots, strict=True):
        if name in skip:
            continue
        gradient = gradients[our_name(name, layers)].grad.double().flatten()
        places = torch.arange(len(gradient), dtype=torch.float64).cos()
        assert_close(gradient.norm(), norm, f"{tag}: gradient of {name}")
        assert_close(gradient @ places, dot, f"{tag}: direction of the gradient of {name}")


TERMS = {
    "ITC": "loss_itc",
    "ITM": "loss_itm",
    "CrossEntropy Loss(U)": "loss_mlm",
    "Box L1": "loss_bbox",
    "Box GIoU": "loss_giou",
}


def targets(inputs: dict[str, Tensor]) -> Tensor:
    """U_TARGET_IDS (R, T) of masked positions and their words."""
    found = torch.full_like(inputs["text_ids"], -1)
    real = inputs["masked_ids"] >= 0
    rows = torch.arange(len(found))[:, None].expand_as(real)
    found[rows[real], inputs["masked_pos"][real]] = inputs["masked_ids"][real]
    return found


def batch_of(fixture: Fixture, tag: str, negatives_of: str = "") -> dict[str, Any]:
    """The batch of a case of pre-training under our keys."""
    from xmodaler.config import kfg

    inputs = fixture.below(f"{tag}/", fixture.inputs)
    expected = fixture.below(f"{negatives_of or tag}/", fixture.expected)
    batch = {
        kfg.U_TOKENS_IDS: inputs["text_ids_masked"],
        kfg.U_TOKENS_IDS_WO_MASK: inputs["text_ids"],
        kfg.TOKENS_MASKS: inputs["text_atts"],
        kfg.U_TARGET_IDS: targets(inputs),
    }
    if "image" in inputs:
        batch[kfg.IMAGES] = inputs["image"]
    if "text_ids_2" in inputs:
        batch[kfg.P_TOKENS_IDS] = inputs["text_ids_2"]
        batch[kfg.P_TOKENS_MASKS] = inputs["text_atts_2"]
    if "image_neg_idx" in expected:
        batch[kfg.IMAGE_NEGATIVES] = expected["image_neg_idx"]
        batch[kfg.TEXT_NEGATIVES] = expected["text_neg_idx"]
    if "idx_to_group_img" in inputs:
        batch[kfg.REGION_INDEX] = inputs["idx_to_group_img"]
        batch[kfg.REGION_MASKS] = inputs["image_atts"]
        batch[kfg.TARGET_BBOX] = inputs["target_bbox"]
        batch[kfg.IS_IMAGE] = inputs["is_image"]
    return batch


def losses_of(outputs: Any) -> dict[str, Tensor]:
    """The losses of pre-training by the names that the fixtures give them."""
    from xmodaler.losses import (
        BoxRegression,
        CrossEntropy,
        ImageTextContrastive,
        ImageTextMatching,
    )

    found = {}
    for loss in (ImageTextContrastive(), ImageTextMatching(), CrossEntropy(), BoxRegression()):
        found.update(loss(outputs))
    return {TERMS[name]: value for name, value in found.items()}


@pytest.fixture(scope="session")
def parity() -> Any:
    """The functions above."""
    from types import SimpleNamespace

    return SimpleNamespace(
        close=assert_close,
        model=load_model,
        config=model_config,
        gradients=check_gradients,
        batch_of=batch_of,
        losses_of=losses_of,
    )
