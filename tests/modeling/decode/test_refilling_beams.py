"""Beams that are refilled when a sentence is completed, against a search written out in Python."""

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from xmodaler.modeling.decode_strategy import GreedyDecoder, RefillingBeamSearcher
from xmodaler.modeling.decode_strategy.word_rules import WordRules
from xmodaler.utils.errors import UserError

property_test = hypothesis.settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def may_follow(words, word, min_length, ngram):
    if word == 0:
        return len(words) >= min_length
    longer = (*words, word)
    grams = [longer[start : start + ngram] for start in range(len(longer) - ngram + 1)]
    return not ngram or len(grams) == len(set(grams))


def written_out(table, beams, penalty=0.0, min_length=0, ngram=0):
    """Sentences (words, score) of one image's table (T, V, V), best first."""
    log_probs, steps = table.log_softmax(-1), len(table)
    live, found = [((), 0.0)], []
    for time in range(steps):
        longer = []
        for words, score in live:
            row = log_probs[time, words[-1] if words else 0]
            longer += [
                ((*words, word), score + row[word].item())
                for word in range(len(row))
                if may_follow(words, word, min_length, ngram)
            ]
        longer = sorted(longer, key=lambda one: -one[1])[:beams]
        last = time + 1 == steps
        found += [one for one in longer if last or one[0][-1] == 0]
        live = [one for one in longer if one[0][-1] != 0]
    found = [(words, score / ((5 + len(words)) / 6) ** penalty) for words, score in found]
    return sorted(found, key=lambda one: -one[1])


@property_test
@hypothesis.given(
    batch=st.integers(1, 4),
    steps=st.integers(3, 7),
    words=st.integers(3, 7),
    beams=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 0.5, 1.0]),
    min_length=st.integers(0, 2),
    ngram=st.sampled_from([0, 2, 3]),
    seed=st.integers(0, 10_000),
)
def test_sentences_are_those_of_the_written_out_search(
    table_model, random_table, batch, steps, words, beams, penalty, min_length, ngram, seed
):
    table = random_table(batch, steps, words, seed).double()
    searcher = RefillingBeamSearcher(
        beam_size=beams,
        max_seq_len=steps,
        length_penalty=penalty,
        min_length=min_length,
        no_repeat_ngram=ngram,
    )
    wanted = [written_out(image, beams, penalty, min_length, ngram) for image in table]
    count = min(beams, min(map(len, wanted)))
    hypothesis.assume(count)
    out = searcher({"OUT_SIZE": count}, False, table_model(table))
    ids = out["G_SENTS_IDS"].view(batch, count, steps)
    log_probs = out["G_LOGP"].view(batch, count, steps)
    for image in range(batch):
        for rank, (sentence, score) in enumerate(wanted[image][:count]):
            length = len(sentence)
            assert ids[image, rank].tolist() == list(sentence) + [0] * (steps - length)
            total = log_probs[image, rank].sum() / ((5 + length) / 6) ** penalty
            assert total.item() == pytest.approx(score, abs=1e-5)
            assert not log_probs[image, rank, length:].any()


def test_a_search_ends_when_nothing_can_overtake(table_model):
    table = torch.full((2, 9, 4, 4), -4.0)
    table[:, 0, :, 1] = 6.0
    table[0, 1, :, 0] = 6.0
    table[1, 1:4, :, 2] = 6.0
    table[1, 4, :, 0] = 6.0
    model = table_model(table)
    out = RefillingBeamSearcher(beam_size=3, max_seq_len=9)({}, False, model)
    assert out["G_SENTS_IDS"][0].tolist() == [1, 0] + [0] * 7
    assert out["G_SENTS_IDS"][1].tolist() == [1, 2, 2, 2, 0] + [0] * 4
    # Both images, then three beams each, then the second one alone.
    assert model.rows_per_step == [2, 6, 3, 3, 3]


def test_gradients_flow_to_the_words_of_all_sentences(table_model, random_table):
    model = table_model(random_table(2, 5, 6), requires_grad=True)
    out = RefillingBeamSearcher(beam_size=3, max_seq_len=5)({"OUT_SIZE": 3}, False, model)
    out["G_LOGP"].sum().backward()
    assert model.table.grad.abs().sum() > 0


def test_attention_is_that_of_the_best_sentence(table_model, random_table):
    model = table_model(random_table(3, 5, 6))
    searcher = RefillingBeamSearcher(beam_size=3, max_seq_len=5)
    out = searcher({"RETURN_ATTENTION": True}, False, model)
    for image, words in enumerate(out["G_SENTS_IDS"]):
        length = int((words == 0).nonzero()[0]) + 1 if (words == 0).any() else len(words)
        said = torch.cat([torch.zeros(1), words.float()])
        for time in range(length):
            prefix = said[: time + 1]
            expected = torch.stack([prefix.mean(), prefix[-1], torch.tensor(float(image))])
            torch.testing.assert_close(out["ATTENTION_MAPS"][image, time], expected)


def test_no_sentence_ends_before_its_least_length(table_model):
    table = torch.zeros(1, 6, 4, 4)
    table[..., 0] = 5.0
    greedy = GreedyDecoder(max_seq_len=6, min_length=3)({}, False, table_model(table))
    assert [word == 0 for word in greedy["G_SENTS_IDS"][0].tolist()] == [False] * 3 + [True] * 3
    rules = WordRules([], 0, min_length=2, eos_token_id=3)
    scores = rules(torch.zeros(1, 5), torch.zeros(1, 1, dtype=torch.int64))
    assert scores[0].isneginf().tolist() == [False, False, False, True, False]
    with pytest.raises(UserError, match=r"MIN_LENGTH is 6; it must be 0 or more and below .* 6"):
        GreedyDecoder(max_seq_len=6, min_length=6)
