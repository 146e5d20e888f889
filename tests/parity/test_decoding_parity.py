"""Decoding gives the ids and log-probabilities recorded from the original system."""

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import pad

from xmodaler.config import kfg
from xmodaler.modeling.decode_strategy import BeamSearcher, GreedyDecoder

BEGIN_END = {"": (0, 0), "eos5_": (4, 5)}


class Table:
    """p(next | image, time, previous word) read from a (B, T, V, V) table of logits."""

    def __init__(self, table):
        self.table = table

    def start(self, batch):
        return {"memory": {"table": self.table}, "rows": {}, "time": 0}

    def step(self, tokens, state):
        table, time = state["memory"]["table"], state["time"]
        image = torch.arange(len(tokens)) // (len(tokens) // len(table))
        return table[image, time, tokens], {**state, "time": time + 1}


def test_table_language_models(shared_folder):
    path = shared_folder / "beam_toy.safetensors"
    if not path.is_file():
        pytest.skip(f"no {path}")
    fixture = load_file(path)
    cases = sorted({key.split("/")[0] for key in fixture if "/" in key})
    assert cases
    for case in cases:
        check_table(fixture, case)


def check_table(fixture, case):
    prefix = "eos5_" if case.startswith("eos5_") else ""
    table = fixture["table_eos5" if prefix else "table"]
    begin, end = BEGIN_END[prefix]
    settings = {"max_seq_len": table.size(1), "bos_token_id": begin, "eos_token_id": end}
    batch = {}
    if case.endswith("greedy"):
        strategy = GreedyDecoder(**settings)
    else:
        beam, *every = case.removeprefix(prefix + "beam").split("_")
        strategy = BeamSearcher(beam_size=int(beam), **settings)
        batch = {"OUT_SIZE": int(beam)} if every else {}
    out = strategy(batch, False, Table(table))
    assert torch.equal(out["G_SENTS_IDS"], fixture[f"{case}/G_SENTS_IDS"]), case
    expected = fixture[f"{case}/G_LOGP"]
    torch.testing.assert_close(out["G_LOGP"], expected, atol=1e-5, rtol=0, msg=case)


@torch.no_grad()
def decode(captioner, use_beam_search=False, **extra):
    for strategy in (captioner.model.greedy_decoder, captioner.model.beam_searcher):
        strategy.vocab_path = str(captioner.folder / "vocabulary.txt")
    batch = {**captioner.inputs("test"), **extra}
    return captioner.model(batch, use_beam_search=use_beam_search, output_sents=True)


def check(captioner, out, case):
    assert torch.equal(out["G_SENTS_IDS"], captioner.expected[f"{case}/G_SENTS_IDS"])
    tolerance = captioner.meta["tolerance"]["abs"]
    expected = captioner.expected[f"{case}/G_LOGP"]
    torch.testing.assert_close(out["G_LOGP"], expected, atol=tolerance, rtol=0)
    sentences = captioner.meta.get("sentences", {})
    if case in sentences:
        assert out["OUTPUT"] == sentences[case]


def test_greedy_decoding(captioner):
    check(captioner, decode(captioner), "greedy")


def test_beam_search(captioner):
    for beam_size in captioner.meta["beams"]:
        captioner.model.beam_searcher.beam_size = beam_size
        check(captioner, decode(captioner, use_beam_search=True), f"beam{beam_size}")
        every = decode(captioner, use_beam_search=True, OUT_SIZE=beam_size)
        check(captioner, every, f"beam{beam_size}_all")


def test_sampled_sentences_have_the_recorded_log_probs(captioner):
    """The recorded samples, fed back word by word, get the recorded log-probabilities."""
    model, expected = captioner.model, captioner.expected["sample/G_LOGP"]
    ids = captioner.expected["sample/G_SENTS_IDS"]
    with torch.no_grad():
        state = model.start(model.preprocess_batch(captioner.inputs("test")))
        words = torch.zeros(len(ids), dtype=torch.long)
        for time in range(ids.size(1)):
            logits, state = model.step(words, state)
            words = ids[:, time]
            log_probs = logits.log_softmax(-1).gather(1, words.unsqueeze(1)).squeeze(1)
            # What was drawn behind the end of a sentence is not recorded.
            unfinished = (ids[:, :time] != 0).all(1)
            torch.testing.assert_close(
                log_probs[unfinished],
                expected[unfinished, time],
                atol=captioner.meta["tolerance"]["abs"],
                rtol=0,
            )


def test_own_samples_are_reproduced_by_their_seed(captioner):
    torch.manual_seed(0)
    first = decode(captioner, DECODE_BY_SAMPLE=True)
    torch.manual_seed(0)
    again = decode(captioner, DECODE_BY_SAMPLE=True)
    assert torch.equal(first["G_SENTS_IDS"], again["G_SENTS_IDS"])


def test_a_picture_is_decoded_alike_alone_and_in_a_batch(captioner):
    captioner.model.beam_searcher.beam_size = max(captioner.meta["beams"])
    batch = captioner.inputs("test")
    count = len(captioner.meta["ids"]["test"])
    first = {
        key: value[:1] if hasattr(value, "__len__") and len(value) == count else value
        for key, value in batch.items()
    }
    with torch.no_grad():
        together = captioner.model(batch, use_beam_search=True)["G_SENTS_IDS"]
        alone = captioner.model(first, use_beam_search=True)["G_SENTS_IDS"]
    assert torch.equal(alone[0], together[0])


def test_padding_changes_nothing(captioner):
    """Three more hidden regions or frames: the same sentences with the same log-probabilities."""
    if captioner.cfg.MODEL.VISUAL_EMBED.NAME == "VisualGridEmbedding":
        return  # learned positions: a grid has one size
    if captioner.cfg.MODEL.get("TDCONVED", {}).get("ENCODER", {}).get("COMPATIBLE", False):
        return  # the released weights were trained with an encoder that sees the padding
    batch = captioner.inputs("test")
    feats, masks = batch[kfg.ATT_FEATS], batch[kfg.ATT_MASKS]
    wider = {
        **batch,
        kfg.ATT_FEATS: pad(feats, (0, 0, 0, 3)),
        kfg.ATT_MASKS: pad(masks, (0, 3)),
    }
    if kfg.RELATION in batch:
        wider[kfg.RELATION] = pad(batch[kfg.RELATION], (0, 3, 0, 3))
    captioner.model.beam_searcher.beam_size = max(captioner.meta["beams"])
    with torch.no_grad():
        for beam in (False, True):
            expected = captioner.model(batch, use_beam_search=beam)
            out = captioner.model(wider, use_beam_search=beam)
            assert torch.equal(out["G_SENTS_IDS"], expected["G_SENTS_IDS"])
            torch.testing.assert_close(out["G_LOGP"], expected["G_LOGP"], atol=1e-4, rtol=0)


def test_a_picture_without_features_gives_finite_numbers(captioner):
    if captioner.cfg.MODEL.VISUAL_EMBED.NAME == "VisualGridEmbedding":
        return  # a grid is never empty
    batch = captioner.inputs("test")
    masks = batch[kfg.ATT_MASKS].clone()
    masks[0] = 0
    with torch.no_grad():
        out = captioner.model({**batch, kfg.ATT_MASKS: masks}, use_beam_search=True)
        alike = captioner.model(batch, use_beam_search=True)
    assert torch.isfinite(out["G_LOGP"]).all()
    others = [out["G_SENTS_IDS"][1:], alike["G_SENTS_IDS"][1:]]
    assert torch.equal(*others)
