"""Settings, vocabulary and text of decode strategies; ensembles."""

import pickle

import pytest
import torch

from xmodaler.config import get_cfg
from xmodaler.modeling.decode_strategy import (
    DECODE_STRATEGY_REGISTRY,
    BeamSearcher,
    DecodeStrategy,
    EnsembleBeamSearcher,
    GreedyDecoder,
    build_beam_searcher,
    build_greedy_decoder,
)
from xmodaler.modeling.meta_arch.ensemble import Ensemble
from xmodaler.utils.errors import UserError


@pytest.fixture
def vocabulary(tmp_path):
    path = tmp_path / "vocabulary.txt"
    path.write_text("a\nred\ncircle\nUNK\n", encoding="utf-8")
    return str(path)


def config(vocabulary="", **options):
    cfg = get_cfg()
    cfg.INFERENCE.VOCAB = vocabulary
    cfg.MODEL.VOCAB_SIZE = 5
    cfg.MODEL.MAX_SEQ_LEN = 4
    for key, value in options.items():
        cfg.DECODE_STRATEGY[key] = value
    return cfg


def test_a_config_sets_every_option(vocabulary):
    cfg = config(
        vocabulary, BEAM_SIZE=3, LENGTH_PENALTY=0.6, NO_REPEAT_NGRAM=2, SUPPRESS_WORDS=["UNK"],
        TEMPERATURE=0.7, TOP_K=4, TOP_P=0.9,
    )  # fmt: skip
    searcher = build_beam_searcher(cfg)
    assert type(searcher) is BeamSearcher
    assert (searcher.beam_size, searcher.max_seq_len, searcher.length_penalty) == (3, 4, 0.6)
    assert (searcher.no_repeat_ngram, searcher.suppress_words) == (2, ("UNK",))
    decoder = build_greedy_decoder(cfg)
    assert type(decoder) is GreedyDecoder
    assert (decoder.temperature, decoder.top_k, decoder.top_p) == (0.7, 4, 0.9)
    assert (decoder.bos_token_id, decoder.eos_token_id) == (0, 0)
    assert not list(searcher.parameters()) and not searcher.state_dict()


def test_strategies_are_registered():
    assert {"GreedyDecoder", "BeamSearcher", "EnsembleBeamSearcher"} <= {
        name for name, _ in DECODE_STRATEGY_REGISTRY
    }


def test_a_strategy_of_ones_own_needs_one_method(table_model, random_table):
    class Constant(DecodeStrategy):
        def _forward(self, batched_inputs, model):
            ids = torch.ones(len(batched_inputs["IDS"]), self.max_seq_len, dtype=torch.long)
            return {"G_SENTS_IDS": ids, "G_LOGP": torch.zeros(ids.shape)}

    out = Constant(max_seq_len=3)({"IDS": [1, 2]}, False, None)
    assert out["IDS"] == [1, 2] and out["G_SENTS_IDS"].shape == (2, 3)


def test_text_is_made_only_when_asked_for(table_model, random_table, vocabulary, tmp_path):
    table = torch.full((2, 4, 5, 5), -9.0)
    table[0, 0, :, 1] = table[0, 1, :, 2] = table[0, 2, :, 3] = table[0, 3, :, 0] = 9.0
    table[1, :, :, 0] = 9.0
    missing = build_beam_searcher(config(str(tmp_path / "nowhere.txt"), BEAM_SIZE=2))
    assert "OUTPUT" not in missing({}, False, table_model(table))
    with pytest.raises(UserError, match=r"nowhere\.txt"):
        missing({}, True, table_model(table))
    searcher = build_beam_searcher(config(vocabulary, BEAM_SIZE=2))
    assert searcher({}, True, table_model(table))["OUTPUT"] == ["a red circle", ""]
    greedy = build_greedy_decoder(config(vocabulary))
    assert greedy({}, True, table_model(table))["OUTPUT"] == ["a red circle", ""]
    several = searcher({"OUT_SIZE": 2}, True, table_model(table))["OUTPUT"]
    assert [len(sentences) for sentences in several] == [2, 2]
    assert several[0][0] == "a red circle"
    assert pickle.loads(pickle.dumps(searcher)).vocab == [".", "a", "red", "circle", "UNK"]


def test_a_vocabulary_of_another_size_is_refused(vocabulary):
    cfg = config(vocabulary)
    cfg.MODEL.VOCAB_SIZE = 7
    with pytest.raises(UserError, match=r"has 4 words, but MODEL.VOCAB_SIZE 7 needs 6"):
        build_greedy_decoder(cfg).sentences(torch.zeros(1, 4, dtype=torch.long))


def test_no_vocabulary_is_refused_when_text_is_asked_for():
    with pytest.raises(UserError, match=r"INFERENCE.VOCAB is empty"):
        build_greedy_decoder(config("")).sentences(torch.zeros(1, 4, dtype=torch.long))


def test_a_tokenizer_in_place_of_a_vocabulary():
    class Tokenizer:
        ids_to_tokens = {7: "foot", 8: "##ball", 9: "[SEP]"}  # noqa: RUF012

        def convert_tokens_to_string(self, tokens):
            return " ".join(tokens).replace(" ##", "")

    decoder = GreedyDecoder(bert_tokenizer=Tokenizer(), bos_token_id=1, eos_token_id=9)
    assert decoder.sentences(torch.tensor([[7, 8, 9, 0], [9, 0, 0, 0]])) == ["football", ""]


def test_suppressed_words_are_named_by_the_vocabulary(table_model, random_table, vocabulary):
    searcher = build_beam_searcher(config(vocabulary, BEAM_SIZE=3, SUPPRESS_WORDS=["UNK", "red"]))
    ids = searcher({"OUT_SIZE": 3}, False, table_model(random_table()))["G_SENTS_IDS"]
    assert not torch.isin(ids, torch.tensor([2, 4])).any()
    wrong = build_beam_searcher(config(vocabulary, BEAM_SIZE=3, SUPPRESS_WORDS=["cirle"]))
    with pytest.raises(UserError, match="did you mean 'circle'"):
        wrong({}, False, table_model(random_table()))


@pytest.mark.parametrize(
    ("key", "value"),
    [("BEAM_SIZE", 0), ("TEMPERATURE", 0.0), ("TOP_K", -1), ("TOP_P", 0.0), ("TOP_P", 1.5),
     ("NO_REPEAT_NGRAM", -2)],
)  # fmt: skip
def test_settings_out_of_range_are_refused(key, value):
    with pytest.raises(UserError, match=f"DECODE_STRATEGY.{key} is {value}"):
        build_beam_searcher(config(**{key: value}))


def test_an_ensemble_averages_probabilities(table_model, random_table):
    tables = [random_table(batch=3, steps=4, words=5, seed=seed) for seed in range(2)]
    weights = [3.0, 1.0]
    mean = sum(w / 4 * table.softmax(-1) for w, table in zip(weights, tables, strict=True))
    expected = BeamSearcher(beam_size=3, max_seq_len=4)(
        {"OUT_SIZE": 3}, False, table_model(mean.log())
    )
    searcher = EnsembleBeamSearcher(beam_size=3, max_seq_len=4)
    models = [table_model(table) for table in tables]
    out = searcher({"OUT_SIZE": 3}, False, models, weights)
    assert torch.equal(out["G_SENTS_IDS"], expected["G_SENTS_IDS"])
    torch.testing.assert_close(out["G_LOGP"], expected["G_LOGP"])


class TableModule(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.start, self.step = model.start, model.step

    def preprocess_batch(self, batch):
        return batch


def test_ensemble_of_models(table_model, random_table, vocabulary):
    cfg = config(vocabulary, BEAM_SIZE=2, NAME="EnsembleBeamSearcher")
    cfg.MODEL.MODEL_WEIGHTS = [1.0, 1.0]
    tables = [random_table(seed=seed) for seed in range(2)]
    members = [TableModule(table_model(table)) for table in tables]
    mean = (tables[0].softmax(-1) + tables[1].softmax(-1)) / 2
    for use_beam_search, beams in ((True, 2), (False, 1)):
        out = Ensemble(members, cfg)({}, use_beam_search=use_beam_search, output_sents=True)
        expected = BeamSearcher(beam_size=beams, max_seq_len=4)({}, False, table_model(mean.log()))
        assert torch.equal(out["G_SENTS_IDS"], expected["G_SENTS_IDS"])
        assert len(out["OUTPUT"]) == 3
    cfg.MODEL.MODEL_WEIGHTS = [1.0]
    with pytest.raises(UserError, match=r"2 models has 1 MODEL.MODEL_WEIGHTS"):
        Ensemble(members, cfg)


def test_an_ensemble_of_different_vocabularies_is_refused(table_model, random_table):
    models = [table_model(random_table(words=words)) for words in (5, 6)]
    with pytest.raises(UserError, match="share one vocabulary"):
        EnsembleBeamSearcher(beam_size=2, max_seq_len=4)({}, False, models)
