"""Decoding gives the ids and log-probabilities recorded from the original system."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from xmodaler.modeling.decode_strategy import BeamSearcher, GreedyDecoder

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared" / "parity"
DEFAULT = SHARED if SHARED.is_dir() else Path(__file__).parent / "data"
CAPTIONING = Path(os.environ.get("XMODALER_PARITY_DIR", DEFAULT)) / "captioning"
TOY = CAPTIONING / "_shared" / "beam_toy.safetensors"
MODELS = sorted(path.parent.name for path in CAPTIONING.glob("*/expected.safetensors"))
BEGIN_END = {"": (0, 0), "eos5_": (4, 5)}

needs_toy = pytest.mark.skipif(not TOY.is_file(), reason=f"no fixture {TOY}")


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


def toy_cases():
    if not TOY.is_file():
        return []
    names = {key.split("/")[0] for key in load_file(TOY) if "/" in key}
    return sorted(names)


@needs_toy
@pytest.mark.parametrize("case", toy_cases())
def test_table_language_models(case):
    fixture = load_file(TOY)
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
    assert torch.equal(out["G_SENTS_IDS"], fixture[f"{case}/G_SENTS_IDS"])
    torch.testing.assert_close(out["G_LOGP"], fixture[f"{case}/G_LOGP"], atol=1e-5, rtol=0)


class Fixture:
    """One model of the fixtures, built and loaded by the public calls, and its test batch."""

    def __init__(self, folder):
        from xmodaler.checkpoint import XmodalerCheckpointer
        from xmodaler.config import get_cfg
        from xmodaler.modeling import add_config, build_model

        cfg = get_cfg()
        config_file = str(folder / "config.yaml")
        add_config(cfg, cfg.load_from_file_tmp(config_file))
        cfg.merge_from_file(config_file)
        cfg.merge_from_list(["INFERENCE.VOCAB", str(folder / "vocabulary.txt")])
        self.model = build_model(cfg)
        XmodalerCheckpointer(self.model).load(str(folder / "weights.safetensors"))
        self.model.eval()
        self.meta = json.loads((folder / "meta.json").read_text())
        self.expected = load_file(folder / "expected.safetensors")
        inputs = load_file(folder / "inputs.safetensors")
        self.batch = {k.removeprefix("test/"): v for k, v in inputs.items() if k.startswith("test")}
        self.batch["IDS"] = self.meta["ids"]["test"]

    @torch.no_grad()
    def decode(self, **extra):
        use_beam_search = extra.pop("use_beam_search", False)
        return self.model({**self.batch, **extra}, use_beam_search, output_sents=True)

    def check(self, out, case):
        assert torch.equal(out["G_SENTS_IDS"], self.expected[f"{case}/G_SENTS_IDS"])
        tolerance = self.meta["tolerance"]["abs"]
        expected = self.expected[f"{case}/G_LOGP"]
        torch.testing.assert_close(out["G_LOGP"], expected, atol=tolerance, rtol=0)


@pytest.fixture(scope="module", params=MODELS or ["none"])
def fixture(request):
    if not MODELS:
        pytest.skip(f"no fixtures under {CAPTIONING}")
    from xmodaler.utils.registry import RegistryKeyError

    try:
        return Fixture(CAPTIONING / request.param)
    except RegistryKeyError as error:
        pytest.skip(f"a part of {request.param} is not in this version: {error}")


def test_greedy_decoding(fixture):
    out = fixture.decode()
    fixture.check(out, "greedy")
    if "greedy" in fixture.meta.get("sentences", {}):
        assert out["OUTPUT"] == fixture.meta["sentences"]["greedy"]


def test_beam_search(fixture):
    for beam_size in fixture.meta["beams"]:
        fixture.model.beam_searcher.beam_size = beam_size
        out = fixture.decode(use_beam_search=True)
        fixture.check(out, f"beam{beam_size}")
        if f"beam{beam_size}" in fixture.meta.get("sentences", {}):
            assert out["OUTPUT"] == fixture.meta["sentences"][f"beam{beam_size}"]
        every = fixture.decode(use_beam_search=True, OUT_SIZE=beam_size)
        fixture.check(every, f"beam{beam_size}_all")


def test_sampled_sentences_have_the_recorded_log_probs(fixture):
    """The recorded samples, fed back word by word, get the recorded log-probabilities."""
    model = fixture.model
    expected = fixture.expected["sample/G_LOGP"]
    ids = fixture.expected["sample/G_SENTS_IDS"]
    with torch.no_grad():
        state = model.start(model.preprocess_batch(fixture.batch))
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
                atol=fixture.meta["tolerance"]["abs"],
                rtol=0,
            )


def test_own_samples_are_reproduced_by_their_seed(fixture):
    torch.manual_seed(0)
    first = fixture.decode(DECODE_BY_SAMPLE=True)
    torch.manual_seed(0)
    again = fixture.decode(DECODE_BY_SAMPLE=True)
    assert torch.equal(first["G_SENTS_IDS"], again["G_SENTS_IDS"])


def test_a_picture_is_decoded_alike_alone_and_in_a_batch(fixture):
    fixture.model.beam_searcher.beam_size = max(fixture.meta["beams"])
    together = fixture.decode(use_beam_search=True)["G_SENTS_IDS"]
    count = len(together)
    first = {
        key: value[:1] if isinstance(value, (torch.Tensor, list)) and len(value) == count else value
        for key, value in fixture.batch.items()
    }
    with torch.no_grad():
        alone = fixture.model(first, use_beam_search=True)["G_SENTS_IDS"]
    assert torch.equal(alone[0], together[0])
