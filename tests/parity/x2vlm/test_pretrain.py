"""Pre-training on pictures, regions, videos and texts gives the losses of the fixture."""

import pytest

from xmodaler.config import kfg
from xmodaler.losses import U_SELECTED, SelectedRows
from xmodaler.modeling.meta_arch.x2vlm.negatives import negative_weights

FAMILY = "pretrain"


@pytest.fixture(scope="module")
def model(fixture, parity):
    from_video = {"MODEL__VISION__FRAME_POSITIONS": fixture.config["model"]["frame_len"]}
    return parity.model(fixture, "X2VLMPretrain", **from_video)


@pytest.mark.parametrize("tag", ["image", "region", "video", "text"])
def test_losses_and_gradients(fixture, model, parity, tag):
    model.zero_grad()
    losses = parity.losses_of(model(parity.batch_of(fixture, tag)))
    expected = fixture.below(f"{tag}/loss_", fixture.expected)
    assert {f"loss_{name}" for name in expected} == set(losses)
    for name, value in losses.items():
        parity.close(value, fixture.expected[f"{tag}/{name}"], f"{tag}/{name}")
    sum(losses.values()).backward()
    parity.gradients(model, fixture, tag)


@pytest.mark.parametrize("tag", ["image", "region", "video"])
def test_vectors_and_weights_of_negatives(fixture, model, parity, tag):
    outputs = model(parity.batch_of(fixture, tag))
    images, texts = outputs[kfg.IMAGE_VECTORS], outputs[kfg.TEXT_VECTORS]
    parity.close(images, fixture.expected[f"{tag}/image_feat"], "image_feat")
    parity.close(texts, fixture.expected[f"{tag}/text_feat"], "text_feat")
    found = negative_weights(images, texts, outputs[kfg.TEMPERATURE])
    for weights, name in zip(found, ("weights_i2t", "weights_t2i"), strict=True):
        parity.close(weights, fixture.expected[f"{tag}/{name}"], name)
    if f"{tag}/itm_logits_positive" in fixture.expected:
        logits = outputs[kfg.ITM_LOGITS][: len(images)]
        parity.close(logits, fixture.expected[f"{tag}/itm_logits_positive"], "itm_logits_positive")
    if tag == "region":
        parity.close(outputs[kfg.OUTPUT_BBOX], fixture.expected["region/output_coord"], "boxes")


@pytest.mark.parametrize("tag", ["image", "region", "video"])
def test_tokens_and_states(fixture, model, parity, tag):
    batch = parity.batch_of(fixture, tag)
    seen = model.see(batch)
    tokens = seen[kfg.ATT_FEATS]
    if tag == "region":
        whole = tokens.index_select(0, batch[kfg.REGION_INDEX])
        parity.close(whole, fixture.expected["region/image_embeds_fullatts"], "whole")
        tokens = seen[kfg.REGION_FEATS].dense()
    parity.close(tokens, fixture.expected[f"{tag}/image_embeds"], "image_embeds")
    if f"{tag}/cross_embeds" in fixture.expected:
        texts = model.read(batch[kfg.U_TOKENS_IDS_WO_MASK], batch[kfg.TOKENS_MASKS].bool())
        shown = texts.shown.unsqueeze(-1)
        expected = fixture.expected[f"{tag}/text_embeds"]
        parity.close(texts.padded() * shown, expected * shown, "text_embeds")
        fused = model.fuse(texts, model.encoder.memory(tokens)).padded()
        expected = fixture.expected[f"{tag}/cross_embeds"]
        parity.close(fused * shown, expected * shown, "cross_embeds")


def test_whole_pictures_may_learn_their_box(fixture, model, parity):
    model.image_boxes = True
    losses = parity.losses_of(model(parity.batch_of(fixture, "region")))
    model.image_boxes = False
    for name in ("loss_bbox", "loss_giou"):
        parity.close(losses[name], fixture.expected[f"region_calc_image_bbox/{name}"], name)


def test_order_of_frames_does_not_matter(fixture, model, parity):
    clips = fixture.inputs["video/image"].flip(1)
    tokens = model.see({kfg.IMAGES: clips})[kfg.ATT_FEATS]
    parity.close(tokens, fixture.expected["video/image_embeds_frames_permuted"], "permuted")


def test_a_mixed_batch(fixture, model, parity):
    model.zero_grad()
    theirs = fixture.config["model"]
    kinds = {"images": "image", "regions": "region", "videos": "video", "texts": "text"}
    groups = {name: parity.batch_of(fixture, tag, f"mixed/{tag}") for name, tag in kinds.items()}
    outputs = model({kfg.GROUPS: groups})[kfg.GROUPS]
    total = sum(
        theirs[name]["iter_perc"] * sum(parity.losses_of(outputs[name]).values()) for name in groups
    )
    total.backward()
    parity.gradients(model, fixture, "mixed")


def test_masked_words_are_the_only_logits(fixture, model, parity):
    batch = parity.batch_of(fixture, "image")
    rows = model(batch)[U_SELECTED]
    assert isinstance(rows, SelectedRows)
    assert len(rows.logits) == int((batch[kfg.U_TARGET_IDS] >= 0).sum())
    assert kfg.U_LOGITS not in model(batch)
