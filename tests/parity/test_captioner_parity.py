"""Every captioner reproduces the reference's logits, losses, gradients and parameter names."""

import json

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.losses import CrossEntropy, LabelSmoothing, build_losses

TOLERANCE = {"atol": 1e-4, "rtol": 1e-4}


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
        total = sum(v for loss in build_losses(captioner.cfg) for v in loss(outputs).values())
        torch.testing.assert_close(total, captioner.expected["loss/recipe_total"], **TOLERANCE)


def test_gradient_norms(captioner):
    for batch in batches(captioner):
        captioner.model.zero_grad()
        (loss,) = CrossEntropy()(captioner.model(batch)).values()
        loss.backward()
        for name, parameter in captioner.model.named_parameters():
            expected = captioner.expected[f"gradnorm_ce/{name}"].item()
            if expected < 0:
                assert parameter.grad is None, name
                continue
            norm = 0.0 if parameter.grad is None else parameter.grad.norm().item()
            if max(norm, expected) < 1e-6:  # rounding noise of a zero gradient
                continue
            assert norm == pytest.approx(expected, rel=1e-3, abs=1e-6), name


def test_encoder_outputs(captioner):
    expected = {
        key.split("/", 1)[1]: value
        for key, value in captioner.expected.items()
        if key.startswith("enc/")
    }
    with torch.no_grad():
        outputs = captioner.model(captioner.inputs("train"))
        once = captioner.model(captioner.once_per_image())
    for key, value in expected.items():
        torch.testing.assert_close(outputs[key], value, **TOLERANCE)
        torch.testing.assert_close(once[key], value[:: captioner.captions_per_image()], **TOLERANCE)


def test_full_size_names_and_shapes(captioner):
    """The model at released size has exactly the released names and shapes."""
    from xmodaler.modeling import build_model

    path = captioner.folder / "keys_full.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    for released in json.loads(path.read_text()).values():
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


def full_size(cfg, released):
    """The fixture's config with the sizes that the released shapes imply."""
    shape = {name: entry["shape"] for name, entry in released.items()}
    model = cfg.clone().MODEL
    root = cfg.clone()
    root.MODEL = model
    model.DEVICE = "meta"
    model.VOCAB_SIZE, model.TOKEN_EMBED.DIM = shape["token_embed.embeddings.weight"]
    model.DECODER_DIM = shape["predictor.logits.weight"][1]
    embed = shape.get("visual_embed.embeddings.weight")
    if embed is not None:
        model.VISUAL_EMBED.OUT_DIM, model.VISUAL_EMBED.IN_DIM = embed
    if "token_embed.embeddings_pos.pe" in shape:
        model.TOKEN_EMBED.POSITION_MAX_LEN = shape["token_embed.embeddings_pos.pe"][1]
    if "visual_embed.embeddings_pos" in shape:
        root.DATALOADER.MAX_FEAT_NUM = shape["visual_embed.embeddings_pos"][1]
        model.VISUAL_EMBED.G_IN_DIM = shape["visual_embed.g_embeddings.weight"][1]
    if "UPDOWN" in model:
        model.UPDOWN.ATT_EMBED_SIZE = shape["decoder.att.w_h.weight"][0]
    heads = [name for name in shape if name.endswith("intermediate.dense.weight")]
    if heads:
        model.BERT.INTERMEDIATE_SIZE, model.BERT.HIDDEN_SIZE = shape[heads[0]]
        model.BERT.NUM_ATTENTION_HEADS = get_cfg().MODEL.BERT.NUM_ATTENTION_HEADS
        model.BERT.NUM_HIDDEN_LAYERS = count_layers(shape, "encoder.layers.")
        model.BERT.NUM_GENERATION_LAYERS = count_layers(shape, "decoder.g_layers.")
    return root


def count_layers(names, prefix):
    """Number of layers whose parameters have names ``<prefix><number>.``."""
    return len({name[len(prefix) :].split(".")[0] for name in names if name.startswith(prefix)})
