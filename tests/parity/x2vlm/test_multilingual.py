"""Separate towers, as many languages have them, give the losses of the fixture."""

import pytest

from xmodaler.config import kfg

FAMILY = "multilingual"
RENAMED = {"loss_itc": "loss_ttc", "loss_itm": "loss_ttm"}


@pytest.fixture(scope="module")
def model(fixture, parity):
    if "image/loss_itc" not in fixture.expected:
        pytest.skip("no pre-training")
    return parity.model(fixture, "X2VLMPretrain")


def named(losses, tag):
    """The losses of two languages have names of their own."""
    if tag != "mtext":
        return losses
    return {RENAMED.get(name, name): value for name, value in losses.items()}


@pytest.mark.parametrize("tag", ["image", "region", "mtext"])
def test_losses_and_gradients(fixture, model, parity, tag):
    model.zero_grad()
    losses = named(parity.losses_of(model(parity.batch_of(fixture, tag))), tag)
    expected = fixture.below(f"{tag}/", fixture.expected)
    assert {name for name in expected if name.startswith("loss_")} == set(losses)
    for name, value in losses.items():
        parity.close(value, expected[name], f"{tag}/{name}")
    sum(losses.values()).backward()
    parity.gradients(model, fixture, tag)


def test_a_mixed_batch(fixture, model, parity):
    model.zero_grad()
    kinds = {"images": "image", "regions": "region", "mtexts": "mtext"}
    groups = {name: parity.batch_of(fixture, tag, f"mixed/{tag}") for name, tag in kinds.items()}
    outputs = model({kfg.GROUPS: groups})[kfg.GROUPS]
    sum(sum(parity.losses_of(part).values()) for part in outputs.values()).backward()
    parity.gradients(model, fixture, "mixed")


def test_retrieval(fixture, model, parity):
    kept = {name: value for name, value in fixture.weights.items() if _serves(name)}
    retriever = parity.model(fixture, "X2VLMRetrieval", kept)
    batch = parity.batch_of(fixture, "image", "retrieval")
    batch[kfg.U_TOKENS_IDS] = batch[kfg.U_TOKENS_IDS_WO_MASK]
    batch[kfg.PAIR_IDS] = fixture.inputs["image/idx"]
    losses = parity.losses_of(retriever({k: v for k, v in batch.items() if "TARGET" not in k}))
    for name, value in losses.items():
        parity.close(value, fixture.expected[f"retrieval/{name}"], name)
    sum(losses.values()).backward()
    parity.gradients(retriever, fixture, "retrieval")


def _serves(name):
    return not name.startswith(("mlm_head.", "bbox_head."))
