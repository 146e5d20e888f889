"""Captions: losses, gradients, and every generated word of the fixtures."""

from typing import Any

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.losses import LabelSmoothing
from xmodaler.losses.scored_rows import U_SELECTED
from xmodaler.modeling.layers.masking import as_bool
from xmodaler.modeling.meta_arch.x2vlm.captioning import visible_tokens
from xmodaler.tokenization import BertTokenizer

FAMILY = "captioning"
VARIANTS = ["plain", "fgfree"]


@pytest.fixture(scope="module")
def tokenizer(fixture: Any) -> BertTokenizer:
    return BertTokenizer(str(fixture.folder / "vocab.txt"))


def captioner(fixture: Any, parity: Any, **decoding: Any) -> torch.nn.Module:
    """The model of a fixture under settings of DECODE_STRATEGY."""
    settings = {f"DECODE_STRATEGY__{key}": value for key, value in decoding.items()}
    settings = {
        "DECODE_STRATEGY__NAME": "RefillingBeamSearcher",
        "INFERENCE__VOCAB": "BERT",
        "MODEL__PRETRAINING__MODEL_NAME": str(fixture.folder / "vocab.txt"),
        "MODEL__X2VLM__PROMPT": fixture.config["model"]["prompt"],
        **settings,
    }
    return parity.model(fixture, "X2VLMCaptioner", **settings)


def training_batch(fixture: Any, variant: str) -> dict[str, torch.Tensor]:
    inputs = fixture.below(f"{variant}/", fixture.inputs)
    targets = torch.full_like(inputs["text_ids_masked"], -1)
    rows, columns = inputs["masked_weight"].nonzero(as_tuple=True)
    targets[rows, inputs["masked_pos"][rows, columns]] = inputs["masked_ids"][rows, columns]
    return {
        kfg.IMAGES: fixture.inputs["image"],
        kfg.U_TOKENS_IDS: inputs["text_ids_masked"],
        kfg.U_POSITIONS: inputs["position_ids"],
        kfg.U_TARGET_IDS: targets,
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_words_behind_masks_are_learned(fixture, parity, tokenizer, variant):
    model, batch = captioner(fixture, parity), training_batch(fixture, variant)
    inputs = fixture.below(f"{variant}/", fixture.inputs)
    visible = visible_tokens(batch[kfg.U_TOKENS_IDS], batch[kfg.U_POSITIONS])
    expected = as_bool(inputs["attention_mask"])[:, None]
    assert torch.equal(visible.expand_as(expected), expected)
    outputs = model(batch)
    weights = inputs["masked_weight"].bool()
    logits = fixture.expected[f"{variant}/logits"][weights]
    parity.close(outputs[U_SELECTED].logits, logits, "logits")
    smoothing = fixture.config["model"]["label_smoothing"]
    loss = LabelSmoothing(label_smoothing=smoothing, excluded=tokenizer.cls_token_id)
    (value,) = loss(outputs).values()
    parity.close(value, fixture.expected[f"{variant}/loss"], "loss")
    value.backward()
    parity.gradients(model, fixture, variant)


def test_padding_is_left_out(fixture, parity):
    model, batch = captioner(fixture, parity), training_batch(fixture, "fgfree")
    wanted = model(batch)[U_SELECTED].logits
    shown = batch[kfg.U_TOKENS_IDS] != 0
    lean = model({**batch, kfg.TOKENS_MASKS: shown})[U_SELECTED].logits
    parity.close(lean, wanted, "logits")


def test_the_prompt_is_that_of_the_fixture(fixture, parity):
    assert captioner(fixture, parity).prompt_ids == fixture.meta["prompt_ids"]


def test_the_first_word(fixture, parity, tokenizer):
    model = captioner(fixture, parity)
    with torch.no_grad():
        state = model.start({kfg.IMAGES: fixture.inputs["image"]})
        words = torch.full((len(fixture.inputs["image"]),), tokenizer.cls_token_id)
        logits, _ = model.step(words, state)
    expected = fixture.expected["gen/first_step_logprob"]
    parity.close(logits.log_softmax(1), expected, "first_step_logprob")


def test_generated_captions(fixture, parity, tokenizer):
    for name, args in fixture.meta["generate_args"].items():
        # The prompt counts in the window of the reference, which grows with the batch.
        length = fixture.meta["output_length"] - len(fixture.meta["prompt_ids"])
        repeats = args["forbid_duplicate_ngrams"]
        model = captioner(
            fixture,
            parity,
            BEAM_SIZE=args["num_beams"],
            MIN_LENGTH=args["min_length"],
            MAX_LENGTH=length,
            LENGTH_PENALTY=float(args["length_penalty"]),
            NO_REPEAT_NGRAM=args["ngram_size"] if repeats else 0,
        )
        expected = fixture.expected[f"gen/{name}/ids"][:, :length]
        batch = {kfg.IMAGES: fixture.inputs["image"]}
        with torch.no_grad():
            outputs = model(batch, use_beam_search=True, output_sents=True)
            ids = outputs[kfg.G_SENTS_IDS]
            ends = ids == tokenizer.sep_token_id
            ids = ids.masked_fill(ends.cumsum(1) - ends.long() > 0, 0)
            assert torch.equal(ids, expected), name
            assert outputs[kfg.OUTPUT] == fixture.meta["generate"][name]
            # A picture alone gives the same caption.
            for row, image in enumerate(fixture.inputs["image"]):
                alone = model({kfg.IMAGES: image[None]}, use_beam_search=True, output_sents=True)
                assert alone[kfg.OUTPUT] == [fixture.meta["generate"][name][row]]
