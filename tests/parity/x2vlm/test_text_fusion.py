"""Text towers, fusion and the word head give the numbers of the fixtures."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.losses.token_loss import token_cross_entropy
from xmodaler.modeling.layers.masking import BERT_HIDDEN, additive

FAMILY = "text-"


@pytest.fixture(scope="module")
def model(fixture, parity):
    if not (fixture.folder / "config.json").is_file():
        pytest.skip("no model")
    weights = fixture.weights
    if any(name.startswith("bert.") for name in weights):
        weights = {f"text_encoder.{name}": value for name, value in weights.items()}
    weights = {name: x for name, x in weights.items() if not name.startswith("extra_")}
    width = fixture.inputs["image_embeds"].shape[-1]
    width = {"MODEL__FUSION__MEMORY_WIDTH": width}
    return parity.model(fixture, "X2VLMPretrain", weights, partial=True, **width)


def hidden(visible):
    """Additive mask of shown positions, (R, T) or (R, T, T)."""
    visible = visible.bool()
    visible = visible[:, None, None] if visible.dim() == 2 else visible[:, None]
    return additive(visible, torch.float32, BERT_HIDDEN)


def embed(model, fixture, ids="text_ids"):
    tokens = fixture.inputs[ids]
    return model.token_embed.embed(tokens, torch.zeros_like(tokens))


def memory(model, fixture):
    shown = fixture.inputs["image_atts"]
    return model.encoder.memory(fixture.inputs["image_embeds"]).masked(hidden(shown))


def states_of(layers):
    """A list that fills with what the layers are given and what the last one returns."""
    states = []
    for layer in layers:
        layer.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    return states


def test_text_and_fusion_states(fixture, model, parity):
    mask, expected = hidden(fixture.inputs["text_atts"]), fixture.expected
    below, above = states_of(model.encoder.text_layers), states_of(model.encoder.fusion_layers)
    texts = model.encoder.text(embed(model, fixture), mask)
    fused = model.encoder.fuse(texts, mask, memory(model, fixture))
    parity.close(texts, expected["text/last"], "text/last")
    name = "fusion" if "fusion/last" in expected else "cross"
    parity.close(fused, expected[f"{name}/last"], f"{name}/last")
    for number, state in enumerate([*below, texts]):
        parity.close(state, expected[f"text/hidden_{number}"], f"text/hidden_{number}")
    for number, state in enumerate([*above, fused]):
        parity.close(state, expected[f"{name}/hidden_{number}"], f"{name}/hidden_{number}")
    if "multi_modal/last" in expected:
        parity.close(fused, expected["multi_modal/last"], "multi_modal/last")
        alone = model.encoder.fuse(texts, mask, None)
        parity.close(alone, expected["multi_modal_noimage/last"], "multi_modal_noimage/last")


def test_masked_words(fixture, model, parity):
    model.zero_grad()
    inputs, expected = fixture.inputs, fixture.expected
    mask = hidden(inputs["text_atts"])
    texts = model.encoder.text(embed(model, fixture, "text_ids_masked"), mask)
    fused = model.encoder.fuse(texts, mask, memory(model, fixture))
    rows = torch.arange(len(fused))[:, None]
    chosen = fused[rows, inputs["masked_pos"]]
    logits = model.predictor({kfg.U_HIDDEN_STATES: chosen})[kfg.U_LOGITS]
    if "mlm/logits" in expected:
        parity.close(logits, expected["mlm/logits"], "mlm/logits")
    targets = inputs["masked_ids"].masked_fill(inputs["masked_ids"] < 0, -1)
    parity.close(token_cross_entropy(logits, targets), expected["mlm/loss"], "mlm/loss")
    if "mlm_noimage/loss" in expected:
        alone = model.encoder.fuse(texts, mask, None)[rows, inputs["masked_pos"]]
        logits = model.predictor({kfg.U_HIDDEN_STATES: alone})[kfg.U_LOGITS]
        loss = token_cross_entropy(logits, targets)
        parity.close(loss, expected["mlm_noimage/loss"], "mlm_noimage/loss")


def test_other_masks(fixture, model, parity):
    inputs, expected = fixture.inputs, fixture.expected
    shown = inputs["text_atts"].bool()
    lower = torch.ones(shown.shape[1], shown.shape[1]).tril().bool()
    mask = hidden(lower & shown[:, None])
    seen = None if FAMILY + "roberta" in fixture.name else memory(model, fixture)
    states = model.encoder.text(embed(model, fixture), mask)
    if "causal/last" in expected:
        parity.close(states, expected["causal/last"], "causal/last")
    if "causal2d/last" in expected:
        fused = model.encoder.fuse(states, mask, seen)
        parity.close(fused, expected["causal2d/last"], "causal2d/last")
    if "mask3d/last" in expected:
        mask = hidden(inputs["text_atts_3d"])
        x = model.token_embed.embed(
            inputs["text_ids"], inputs["token_type_ids"], positions=inputs["position_ids"]
        )
        fused = model.encoder.fuse(model.encoder.text(x, mask), mask, seen)
        parity.close(fused, expected["mask3d/last"], "mask3d/last")
