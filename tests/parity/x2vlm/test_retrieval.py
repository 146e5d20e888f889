"""Contrast, matching and scoring again give the numbers of the fixture."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.modeling.meta_arch.x2vlm.negatives import negative_weights

FAMILY = "retrieval"


@pytest.fixture(scope="module")
def model(fixture, parity):
    return parity.model(fixture, "X2VLMRetrieval")


@pytest.mark.parametrize("tag", ["idx", "noidx"])
def test_losses_and_gradients(fixture, model, parity, tag):
    model.zero_grad()
    inputs, expected = fixture.inputs, fixture.below(f"{tag}/", fixture.expected)
    batch = {
        kfg.IMAGES: inputs["image"],
        kfg.U_TOKENS_IDS: inputs["text_ids"],
        kfg.TOKENS_MASKS: inputs["text_atts"],
        kfg.IMAGE_NEGATIVES: expected["image_neg_idx"],
        kfg.TEXT_NEGATIVES: expected["text_neg_idx"],
    }
    if tag == "idx":
        batch[kfg.PAIR_IDS] = inputs["idx"]
    outputs = model(batch)
    images, texts = outputs[kfg.IMAGE_VECTORS], outputs[kfg.TEXT_VECTORS]
    parity.close(images, fixture.expected["image_feat"], "image_feat")
    parity.close(texts, fixture.expected["text_feat"], "text_feat")
    found = negative_weights(images, texts, outputs[kfg.TEMPERATURE], batch.get(kfg.PAIR_IDS))
    for weights, name in zip(found, ("weights_i2t", "weights_t2i"), strict=True):
        parity.close(weights, expected[name], name)
    losses = parity.losses_of(outputs)
    for name, value in losses.items():
        parity.close(value, expected[name], name)
    sum(losses.values()).backward()
    parity.gradients(model, fixture, tag)


def test_the_best_are_scored_again(fixture, model, parity):
    inputs, expected = fixture.inputs, fixture.below("eval/", fixture.expected)
    vectors, tokens = model.encode_images({kfg.IMAGES: inputs["eval/images"]})
    words, texts = model.encode_texts(
        {kfg.U_TOKENS_IDS: expected["text_ids"], kfg.TOKENS_MASKS: expected["text_atts"]}
    )
    products = vectors @ words.T
    parity.close(products, expected["sims"], "sims")
    by_image, by_text = model.rerank(products, tokens, texts, fixture.config["model"]["k_test"])
    parity.close(by_image, expected["score_i2t"], "score_i2t")
    parity.close(by_text, expected["score_t2i"], "score_t2i")


def test_metrics(fixture):
    expected, owner = fixture.meta["eval_metrics"], torch.tensor(fixture.meta["txt2img"])
    by_text, by_image = fixture.expected["eval/score_t2i"], fixture.expected["eval/score_i2t"]
    image_ranks = torch.stack([places(row)[own] for row, own in zip(by_text, owner, strict=True)])
    text_ranks = torch.stack(
        [places(row)[owner == number].min() for number, row in enumerate(by_image)]
    )
    for k in (1, 5, 10):
        for ranks, name in ((image_ranks, "img"), (text_ranks, "txt")):
            share = (ranks < k).double().mean() * 100
            assert share == pytest.approx(expected[f"{name}_r{k}"])


def places(scores):
    """The rank of every candidate; of equal ones, which were not scored again, the last leads."""
    order = scores.argsort(stable=True).flip(0)
    return torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
