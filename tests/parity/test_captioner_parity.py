"""Every captioner reproduces the reference's logits, losses, gradients and parameter names."""

import json
from pathlib import Path

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.losses import CrossEntropy, LabelSmoothing, build_losses

REPOSITORY = Path(__file__).resolve().parents[2]
TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}
MASKS = (kfg.ATT_MASKS, kfg.TOKENS_MASKS, kfg.SEMANTICS_MASK)


def batches(fixture):
    """The training batch with features repeated per caption, and once per image."""
    yield fixture.inputs("train")
    if fixture.captions_per_image() > 1:
        yield fixture.once_per_image()


def test_weights_load_by_name(captioner):
    from safetensors.torch import load_file

    weights = load_file(str(captioner.folder / "weights.safetensors"))
    state = captioner.model.state_dict()
    assert set(state) == set(weights)
    for name, value in weights.items():
        torch.testing.assert_close(state[name], value, atol=0, rtol=0)


def test_logits(captioner):
    for batch in batches(captioner):
        before = dict(batch)
        with torch.no_grad():
            outputs = captioner.model(batch)
        assert batch.keys() == before.keys()
        assert all(batch[key] is before[key] for key in before)
        expected = captioner.expected["G_LOGITS"]
        assert outputs[kfg.G_LOGITS].shape == expected.shape
        scored = batch[kfg.G_TARGET_IDS] >= 0
        torch.testing.assert_close(outputs[kfg.G_LOGITS][scored], expected[scored], **TOLERANCE)


def test_losses(captioner):
    losses = {"CrossEntropy": CrossEntropy(), "LabelSmoothing": LabelSmoothing(captioner.cfg)}
    for batch in batches(captioner):
        with torch.no_grad():
            outputs = captioner.model(batch)
        for name, loss in losses.items():
            expected = captioner.expected.get(f"loss/{name}")
            if expected is not None:
                (value,) = loss(outputs).values()
                torch.testing.assert_close(value, expected, **TOLERANCE)
        recipe = recipe_losses(captioner, outputs)
        for name, value in recipe.items():
            if f"loss/{name}" in captioner.expected:
                torch.testing.assert_close(value, captioner.expected[f"loss/{name}"], **TOLERANCE)
        total = sum(recipe.values())
        torch.testing.assert_close(total, captioner.expected["loss/recipe_total"], **TOLERANCE)


def recipe_losses(captioner, outputs):
    """The named values of every loss of the config."""
    return {
        name: value for loss in build_losses(captioner.cfg) for name, value in loss(outputs).items()
    }


def test_every_recorded_loss_of_the_recipe_is_computed(captioner):
    teacher_forced = {"CrossEntropy", "LabelSmoothing", "recipe_total"}
    recorded = {
        name.removeprefix("loss/") for name in captioner.expected if name.startswith("loss/")
    }
    with torch.no_grad():
        outputs = captioner.model(captioner.inputs("train"))
    assert recorded - teacher_forced <= recipe_losses(captioner, outputs).keys()


def test_gradient_norms(captioner):
    for batch in batches(captioner):
        captioner.model.zero_grad()
        (loss,) = CrossEntropy()(captioner.model(batch)).values()
        loss.backward()
        check_gradients(captioner, "gradnorm_ce")


def test_gradient_norms_of_the_recipe(captioner):
    if not any(name.startswith("gradnorm_recipe/") for name in captioner.expected):
        return  # its recipe is the cross-entropy
    for batch in batches(captioner):
        captioner.model.zero_grad()
        sum(recipe_losses(captioner, captioner.model(batch)).values()).backward()
        check_gradients(captioner, "gradnorm_recipe")


def check_gradients(captioner, prefix):
    """Compare the norm of every parameter's gradient with the recorded one."""
    for name, parameter in captioner.model.named_parameters():
        expected = captioner.expected[f"{prefix}/{name}"].item()
        norm = 0.0 if parameter.grad is None else parameter.grad.norm().item()
        if expected < 0:
            assert norm == 0, f"{name} is not used by this loss"
            continue
        if max(norm, expected) < 1e-6:  # rounding noise of a zero gradient
            continue
        assert norm == pytest.approx(expected, rel=1e-3, abs=1e-6), name


def test_encoder_outputs(captioner):
    semantic = (kfg.SEMANTICS_PRED, kfg.SEMANTICS_POS_PRED)
    expected = {
        name.removeprefix("enc/"): value
        for name, value in captioner.expected.items()
        if name.startswith("enc/") or name in semantic
    }
    for batch in batches(captioner):
        with torch.no_grad():
            outputs = captioner.model(batch)
        for key, value in expected.items():
            repeats = len(value) // len(outputs[key])
            torch.testing.assert_close(outputs[key], value[::repeats], **TOLERANCE)


def test_masks_may_be_boolean(captioner):
    batch = captioner.inputs("train")
    masks = {key: value.bool() for key, value in batch.items() if key in MASKS}
    with torch.no_grad():
        expected = captioner.model(batch)[kfg.G_LOGITS]
        logits = captioner.model({**batch, **masks})[kfg.G_LOGITS]
    torch.testing.assert_close(logits, expected, atol=0, rtol=0)


def test_full_size_names_and_shapes(captioner):
    """The model at released size has exactly the released names and shapes."""
    from xmodaler.modeling import build_model

    for released in released_keys(captioner).values():
        cfg = full_size(captioner.cfg, released)
        with torch.device("meta"):
            model = build_model(cfg)
        state = model.state_dict()
        shapes = {name: list(value.shape) for name, value in state.items()}
        assert shapes == {name: entry["shape"] for name, entry in released.items()}
        kinds = dict.fromkeys(dict(model.named_buffers()), "buffer")
        for name, entry in released.items():
            assert kinds.get(name, "parameter") == entry["kind"], name
            assert str(state[name].dtype) == f"torch.{entry['dtype']}", name


def test_shipped_configs_have_the_released_names_and_shapes(captioner):
    """Every config of this repository builds the released model of the same path."""
    from xmodaler.config import load_config
    from xmodaler.modeling import add_config, build_model

    for config, released in released_keys(captioner).items():
        cfg = load_config(str(REPOSITORY / config), ("MODEL.DEVICE", "meta"), add_config)
        with torch.device("meta"):
            model = build_model(cfg)
        shapes = {name: list(value.shape) for name, value in model.state_dict().items()}
        assert shapes == {name: entry["shape"] for name, entry in released.items()}, config


def released_keys(captioner):
    """Config path -> name -> shape, dtype and kind of every released weight."""
    path = captioner.folder / "keys_full.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return json.loads(path.read_text())


def full_size(fixture_cfg, released):
    """A config of the fixture's parts with the sizes that the released shapes imply.

    What a part adds to the config has the released sizes by default; the sizes of the base config
    are read from the shapes.
    """
    from xmodaler.modeling import add_config

    shape = {name: entry["shape"] for name, entry in released.items()}
    root = get_cfg()
    add_config(root, fixture_cfg)
    copy_settings(fixture_cfg, root)
    model = root.MODEL
    model.DEVICE = "meta"
    model.VOCAB_SIZE, model.TOKEN_EMBED.DIM = shape["token_embed.embeddings.weight"]
    model.DECODER_DIM = shape["predictor.logits.weight"][1]
    for name in ("weight", "weight_v"):
        embed = shape.get(f"visual_embed.embeddings.{name}")
        if embed is not None:
            model.VISUAL_EMBED.OUT_DIM, model.VISUAL_EMBED.IN_DIM = embed
    if (
        model.VISUAL_EMBED.NAME == "VisualIdentityEmbedding"
        and "decoder.p_att_feats.weight" in shape
    ):
        model.VISUAL_EMBED.OUT_DIM = shape["decoder.p_att_feats.weight"][1]
    if "token_embed.embeddings_pos.pe" in shape:
        model.TOKEN_EMBED.POSITION_MAX_LEN = shape["token_embed.embeddings_pos.pe"][1]
    if "visual_embed.embeddings_pos" in shape:
        root.DATALOADER.MAX_FEAT_NUM = shape["visual_embed.embeddings_pos"][1]
        model.VISUAL_EMBED.G_IN_DIM = shape["visual_embed.g_embeddings.weight"][1]
    if "encoder.layers.0.intermediate.dense.weight" in shape:
        inner, width = shape["encoder.layers.0.intermediate.dense.weight"]
        model.BERT.INTERMEDIATE_SIZE, model.BERT.HIDDEN_SIZE = inner, width
        model.BERT.NUM_HIDDEN_LAYERS = count_layers(shape, "encoder.layers.")
        model.BERT.NUM_GENERATION_LAYERS = count_layers(shape, "decoder.g_layers.")
    return root


def copy_settings(source, target):
    """Copy what is no number: names of parts, activations, switches."""
    for key, value in source.items():
        if isinstance(value, dict):
            copy_settings(value, target[key])
        elif isinstance(value, (str, bool)):
            target[key] = value


def count_layers(names, prefix):
    """Number of layers whose parameters have names ``<prefix><number>.``."""
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})


def test_the_model_zoo_gives_the_same_model(captioner):
    """Weights by path through the zoo's config, brought to the fixture's sizes."""
    from xmodaler import model_zoo

    entries = map(model_zoo.get_entry, model_zoo.list())
    found = [entry.name for entry in entries if entry.fixture == captioner.meta["model"]]
    if not found:
        pytest.skip(f"the zoo has no model of the fixture {captioner.meta['model']}")
    sizes = [part for pair in leaves(captioner.cfg.MODEL, "MODEL") for part in pair]
    sizes += ["DATALOADER.MAX_FEAT_NUM", captioner.cfg.DATALOADER.MAX_FEAT_NUM]
    weights = str(captioner.folder / "weights.safetensors")
    model = model_zoo.get(found[0], weights=weights, device="cpu", opts=sizes)
    batch = captioner.inputs("train")
    with torch.no_grad():
        expected = captioner.model(batch)[kfg.G_LOGITS]
        torch.testing.assert_close(model(batch)[kfg.G_LOGITS], expected, atol=0, rtol=0)


def leaves(node, prefix):
    """Dotted names and values of all settings below a node."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}.{key}")
        elif key not in ("DEVICE", "WEIGHTS"):
            yield f"{prefix}.{key}", value
