"""The vision towers give the numbers of the fixtures: tokens, regions, other sizes, gradients."""

import math

import pytest
import torch

from xmodaler.checkpoint.vision_towers import translate_tower
from xmodaler.functional.func_resize import EXTRA_ROWS, resize_relative_table
from xmodaler.modeling.vision import BeitTower, ClipVitTower, SwinTower

FAMILY = "vision-"


def beit(config, size=None):
    return BeitTower(
        image_size=size or config["res"],
        patch_size=config["patch"],
        width=config["width"],
        layers=config["layers"],
        heads=config["heads"],
        mlp_ratio=config["mlp_ratio"],
        drop_path=config["drop_path_rate"],
        layer_scale=config["init_values"],
    )


def clip_vit(config, size=None):
    return ClipVitTower(
        image_size=size or config["image_res"],
        patch_size=config["patch_size"],
        width=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        inner_width=config["intermediate_size"],
        activation=config["hidden_act"],
        region_layers=config["local_attn_depth"],
        attention_dropout=config["attention_dropout"],
    )


def swin(config, size=None):
    return SwinTower(
        image_size=size or config["img_size"],
        patch_size=config["patch_size"],
        embed_dim=config["embed_dim"],
        depths=config["depths"],
        heads=config["num_heads"],
        window=config["up_window"] if size == config["up"] else config["window_size"],
        mlp_ratio=config["mlp_ratio"],
        drop_path=config["drop_path_rate"],
    )


MAKERS = {"BEiT": beit, "CLIP": clip_vit, "Swin": swin}


def build(fixture, size=None):
    """The tower of a fixture, in eval mode, with its weights."""
    maker = next(make for kind, make in MAKERS.items() if fixture.config["kind"].startswith(kind))
    tower = maker(fixture.config, size).eval()
    target = tower.backbone.state_dict()
    tower.backbone.load_state_dict(translate_tower(type(tower).__name__, fixture.weights, target))
    return tower


@pytest.fixture
def tower(fixture):
    if not (fixture.folder / "config.json").is_file():
        pytest.skip("holds tables only")
    return build(fixture)


def test_tokens_of_pictures(fixture, tower, close):
    close(tower(fixture.inputs["image"]), fixture.expected["full"], "full")


def test_hidden_states(fixture, tower, close):
    if "hidden_1" not in fixture.expected:
        pytest.skip("no hidden states")
    states, last = [], []
    for block in tower.backbone.blocks:
        block.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
        block.register_forward_hook(lambda *found: last.append(found[2]))
    tokens = tower(fixture.inputs["image"])
    # BEiT's list ends with what the tower returns, mean and norm included.
    end = tokens if isinstance(tower, BeitTower) else last[-1]
    for number, state in enumerate([*states, end]):
        close(state, fixture.expected[f"hidden_{number}"], f"hidden_{number}")


def test_attention_of_the_first_block(fixture, tower, close):
    if "attn_0" not in fixture.expected:
        pytest.skip("no attention")
    attention, weights = tower.backbone.blocks[0].attn, []
    attention.fused_attn = False
    attention.attn_drop.register_forward_hook(lambda *found: weights.append(found[2]))
    tower(fixture.inputs["image"])
    close(weights[0], fixture.expected["attn_0"], "attn_0")


def test_regions(fixture, tower, close):
    inputs = fixture.inputs
    regions, full = tower.regions(inputs["image"], inputs["idx_to_group_img"], inputs["image_atts"])
    close(regions.dense(), fixture.expected["region"], "region")
    close(full, fixture.expected["region_full"], "region_full")


def test_gradients(fixture, tower, close):
    loss = tower(fixture.inputs["image"]).pow(2).mean()
    loss.backward()
    close(loss, fixture.expected["loss"], "loss")
    target = {name: value.grad for name, value in tower.backbone.named_parameters()}
    names = fixture.meta["grad_names"]["total"]
    # Gradients travel under released names, as weights do: a norm per released parameter.
    shares = _released_gradients(tower, fixture, target)
    for name, norm in zip(names, fixture.expected["grad_norm"], strict=True):
        close(shares[name].norm(), norm, name)


def _released_gradients(tower, fixture, gradients):
    """Gradients under released names: ours are translated back by tracing each weight's place."""
    places = {name: value for name, value in fixture.weights.items() if value.is_floating_point()}
    marks, offset = {}, 0
    for name, value in places.items():
        marks[name] = torch.arange(offset, offset + value.numel()).double().view_as(value)
        offset += value.numel()
    ours = translate_tower(type(tower).__name__, marks, gradients)
    flat = torch.zeros(offset)
    for name, gradient in gradients.items():
        flat[ours[name].long().flatten()] = gradient.flatten()
    return {name: flat[mark.long()] for name, mark in marks.items()}


def test_other_picture_sizes(fixture, tower, close):
    for name in ("up", "down"):
        if f"{name}/full" not in fixture.expected:
            continue
        resized = build(fixture, fixture.config[name])
        expected = fixture.below(f"{name}/", fixture.expected)
        close(resized(fixture.inputs[f"image_{name}"]), expected.pop("full"), name)


def test_resized_tables(fixture, tower, close):
    for name in ("up", "down", "clamp"):
        tables = fixture.below(f"{name}/", fixture.expected)
        tables.pop("full", None)
        if not tables:
            continue
        target = type(tower).__name__, build(fixture, fixture.config[name]).backbone.state_dict()
        for key, expected in tables.items():
            kind, weights = target
            ours = "pos_embed" if key == "pos_embed.weight" else key
            close(weights[ours].reshape(expected.shape), expected, f"{name}/{key} of {kind}")


def test_tables_at_real_sizes(fixture):
    if (fixture.folder / "config.json").is_file():
        pytest.skip("a tower")
    for name, expected in fixture.expected.items():
        side = math.isqrt(expected.shape[0] - EXTRA_ROWS)
        found = resize_relative_table(fixture.inputs[name], side)
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
