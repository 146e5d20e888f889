"""What pre-training starts from: an earlier stage, a text model, released weights."""

import sys
from pathlib import Path

import pytest
import torch

from xmodaler.checkpoint.x2vlm import start_text
from xmodaler.engine import build_engine
from xmodaler.engine.running import import_modules
from xmodaler.modeling import build_model
from xmodaler.utils.env import seed_all_rng
from xmodaler.utils.errors import UserError


@pytest.fixture(scope="module")
def lines():
    import_modules([str(Path(__file__).with_name("toy_x2vlm.py"))])
    return sys.modules["toy_x2vlm"]


@pytest.fixture(scope="module")
def data(lines, tmp_path_factory):
    return lines.write_lines(tmp_path_factory.mktemp("lines"))


@pytest.fixture
def start(lines, data, tmp_path):
    """A trainer with the weights that it starts from."""

    def build(name, kinds=("IMAGES",), **changes):
        cfg = lines.config_of(data, tmp_path / name, kinds, **changes)
        cfg.freeze()
        seed_all_rng(cfg.SEED)
        trainer = build_engine(cfg)
        trainer.resume_or_load(resume=changes.get("SEED") == 8)
        return trainer

    return build


def test_the_second_stage_goes_on_from_the_first(start, tmp_path):
    """Everything but the positions of frames; these and no others learn faster."""
    first = start("one", ("IMAGES", "REGIONS"), SOLVER__MAX_ITER=2)
    first.train()
    second = start(
        "two",
        ("IMAGES", "REGIONS", "VIDEOS"),
        MODEL__WEIGHTS=str(tmp_path / "one" / "model_final.pth"),
        MODEL__VISION__FRAME_POSITIONS=2,
        SOLVER__FRESH=["frame_positions"],
        SOLVER__FRESH_LR_FACTOR=2.0,
        SOLVER__MAX_ITER=2,
    )
    expected, found = first.model.state_dict(), second.model.state_dict()
    assert set(found) - set(expected) == {"visual_embed.frame_positions"}
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    faster = [group for group in second.optimizer.param_groups if group["initial_lr"] == 0.002]
    assert [p.shape for group in faster for p in group["params"]] == [(1, 2, 1, 16)]
    metrics = second.train()
    assert "videos/ITC" in metrics


def hub_model(layers, words=15, width=16):
    """A text model under the names of transformers."""
    torch.manual_seed(1)
    sizes = {
        "embeddings.word_embeddings.weight": (words, width),
        "embeddings.position_embeddings.weight": (16, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm.weight": (width,),
        "embeddings.LayerNorm.bias": (width,),
    }
    for layer in range(layers):
        for part, (rows, columns) in {
            "attention.self.query": (width, width),
            "attention.self.key": (width, width),
            "attention.self.value": (width, width),
            "attention.output.dense": (width, width),
            "attention.output.LayerNorm": (width, 0),
            "intermediate.dense": (2 * width, width),
            "output.dense": (width, 2 * width),
            "output.LayerNorm": (width, 0),
        }.items():
            name = f"encoder.layer.{layer}.{part}"
            sizes[f"{name}.weight"] = (rows, columns) if columns else (rows,)
            sizes[f"{name}.bias"] = (rows,)
    return {f"bert.{name}": torch.randn(size) for name, size in sizes.items()}


def test_the_text_tower_is_replaced_and_the_rest_kept(start, tmp_path):
    """As CCLM starts: the text tower from elsewhere, fusion and pictures from X2-VLM."""
    first = start("one", SOLVER__MAX_ITER=1)
    first.train()
    hub = hub_model(1, words=15)
    torch.save(hub, tmp_path / "text.pth")
    changes = {
        "MODEL__WEIGHTS": str(tmp_path / "one" / "model_final.pth"),
        "MODEL__X2VLM__TEXT_WEIGHTS": str(tmp_path / "text.pth"),
        "SOLVER__MAX_ITER": 2,
    }
    second = start("two", **changes)
    expected, found = first.model.state_dict(), second.model.state_dict()
    layer, theirs = "0.attention.self.key.weight", "encoder.layer.0.attention.self.key.weight"
    assert torch.equal(found[f"encoder.text_layers.{layer}"], hub[f"bert.{theirs}"])
    words = hub["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(found["token_embed.embeddings.weight"], words)
    for name, value in expected.items():
        if name.startswith(("visual_embed", "encoder.fusion", "contrast", "itm", "bbox")):
            assert torch.equal(found[name], value), name
    second.train()
    # What was learned is not replaced when the run goes on.
    third = start("two", **{**changes, "SEED": 8})
    learned = third.model.state_dict()["token_embed.embeddings.weight"]
    assert third.start_iter == 2 and not torch.equal(learned, words)


def test_a_new_model_starts_its_fusion_layers_from_the_text_model_too(start, tmp_path):
    hub = hub_model(1)
    torch.save(hub, tmp_path / "text.pth")
    trainer = start("run", MODEL__X2VLM__TEXT_WEIGHTS=str(tmp_path / "text.pth"))
    found = trainer.model.state_dict()
    dense = hub["bert.encoder.layer.0.intermediate.dense.weight"]
    assert torch.equal(found["encoder.fusion_layers.0.intermediate.dense.weight"], dense)


def test_a_text_model_of_another_size_is_refused(lines, data, tmp_path):
    torch.save(hub_model(1, words=99), tmp_path / "text.pth")
    model = build_model(lines.config_of(data, tmp_path / "out"))
    with pytest.raises(UserError, match=r"TEXT_WEIGHTS .*does not fit.*token_embed.embeddings"):
        start_text(model, str(tmp_path / "text.pth"))


def test_released_names_and_files_of_another_picture_size_are_loaded(start, tmp_path):
    small = start("small")
    state = small.model.state_dict()
    released = {"temp": torch.tensor(0.05)}
    for name, value in state.items():
        if name.startswith("visual_embed.tower.backbone."):
            released["vision_encoder." + name.removeprefix("visual_embed.tower.backbone.")] = value
    torch.save({"model": released, "config": {}}, tmp_path / "released.th")
    great = start("great", DATALOADER__IMAGE_SIZE=64, MODEL__WEIGHTS=str(tmp_path / "released.th"))
    found = great.model.state_dict()
    assert found["contrast.temperature"] == 0.05
    kernel = "visual_embed.tower.backbone.patch_embed.proj.weight"
    assert torch.equal(found[kernel], state[kernel])


def test_weights_of_another_model_are_an_error(start, tmp_path):
    torch.save({"model": {"decoder.weight": torch.zeros(3)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="holds no weight of this X2VLMPretrain"):
        start("run", MODEL__WEIGHTS=str(tmp_path / "other.pth"))
