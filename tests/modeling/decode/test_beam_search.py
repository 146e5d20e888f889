"""Beam search on table language models."""

import itertools

import hypothesis
import pytest
import torch
from hypothesis import strategies as st

from xmodaler.modeling.decode_strategy import BeamSearcher, GreedyDecoder
from xmodaler.modeling.decode_strategy.top_words import top_words
from xmodaler.utils.errors import UserError

TABLES = {
    "batch": st.integers(1, 4),
    "steps": st.integers(1, 4),
    "words": st.integers(2, 6),
    "seed": st.integers(0, 10_000),
}
property_test = hypothesis.settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)


def search(model, beam_size, steps, n_best=1, batch=None, **options):
    searcher = BeamSearcher(beam_size=beam_size, max_seq_len=steps, **options)
    out = searcher({"OUT_SIZE": n_best, **(batch or {})}, False, model)
    return out["G_SENTS_IDS"], out["G_LOGP"]


def all_sentences(table, eos=0):
    """Every sentence of one image's table (T, V, V) with its score, best first."""
    log_probs = table.double().log_softmax(-1)
    steps, words = table.shape[:2]
    found = {}
    for sentence in itertools.product(range(words), repeat=steps):
        end = sentence.index(eos) + 1 if eos in sentence else steps
        previous, score = 0, 0.0
        for time, word in enumerate(sentence[:end]):
            score += log_probs[time, previous, word].item()
            previous = word
        found[sentence[:end] + (0,) * (steps - end)] = score
    return sorted(found.items(), key=lambda item: -item[1])


@property_test
@hypothesis.given(**{**TABLES, "steps": st.integers(1, 3), "words": st.integers(2, 4)})
def test_a_beam_as_wide_as_all_sentences_is_an_exact_search(
    table_model, random_table, batch, steps, words, seed
):
    table = random_table(batch, steps, words, seed)
    width = words**steps
    expected = [all_sentences(image) for image in table]
    n_best = min(3, len(expected[0]))
    ids, log_probs = search(table_model(table), width, steps, n_best)
    ids, log_probs = ids.view(batch, n_best, steps), log_probs.view(batch, n_best, steps)
    for image in range(batch):
        for rank in range(n_best):
            sentence, score = expected[image][rank]
            assert tuple(ids[image, rank].tolist()) == sentence
            assert log_probs[image, rank].sum().item() == pytest.approx(score, abs=1e-4)


@property_test
@hypothesis.given(**TABLES)
def test_one_beam_is_greedy_decoding(table_model, random_table, batch, steps, words, seed):
    table = random_table(batch, steps, words, seed)
    ids, log_probs = search(table_model(table), 1, steps)
    greedy = GreedyDecoder(max_seq_len=steps)({}, False, table_model(table))
    assert torch.equal(ids, greedy["G_SENTS_IDS"])
    ended = (ids == 0).cumsum(1) - (ids == 0).long() > 0
    torch.testing.assert_close(log_probs, greedy["G_LOGP"].masked_fill(ended, 0.0))


@property_test
@hypothesis.given(**TABLES, beam=st.integers(1, 5))
def test_returned_log_probs_are_those_of_the_returned_words(
    table_model, random_table, batch, steps, words, seed, beam
):
    table = random_table(batch, steps, words, seed)
    beam = min(beam, words)
    ids, log_probs = search(table_model(table), beam, steps, beam)
    ids, log_probs = ids.view(batch, beam, steps), log_probs.view(batch, beam, steps)
    expected = table.log_softmax(-1)
    for image, rank in itertools.product(range(batch), range(beam)):
        previous, ended = 0, False
        for time, word in enumerate(ids[image, rank].tolist()):
            value = 0.0 if ended else expected[image, time, previous, word].item()
            assert log_probs[image, rank, time].item() == pytest.approx(value, abs=1e-5)
            ended, previous = ended or word == 0, word
    scores = log_probs.sum(-1)
    assert (scores[:, :-1] >= scores[:, 1:] - 1e-5).all()


@property_test
@hypothesis.given(**{**TABLES, "batch": st.integers(2, 6)}, beam=st.integers(1, 4))
def test_images_do_not_influence_each_other(
    table_model, random_table, batch, steps, words, seed, beam
):
    table = random_table(batch, steps, words, seed)
    beam = min(beam, words)
    ids, log_probs = search(table_model(table), beam, steps)
    for image in range(batch):
        alone = search(table_model(table[image : image + 1]), beam, steps)
        assert torch.equal(ids[image], alone[0][0])
        torch.testing.assert_close(log_probs[image], alone[1][0])
    order = torch.randperm(batch, generator=torch.Generator().manual_seed(seed))
    permuted = search(table_model(table), beam, steps, batch={"IMAGE_ROWS": order})
    assert torch.equal(permuted[0], ids[order])


@property_test
@hypothesis.given(**TABLES, beam=st.integers(1, 5), n_best=st.integers(1, 5))
def test_stopping_early_changes_nothing(
    table_model, random_table, batch, steps, words, seed, beam, n_best
):
    class Patient(BeamSearcher):
        """Never looks whether it may stop."""

        def steps_between_checks(self, device):
            return 10_000

    table = random_table(batch, steps, words, seed)
    table[..., 0] += 2.0
    beam = min(beam, words)
    n_best = min(n_best, beam)
    eager, patient = table_model(table), table_model(table)
    ids, log_probs = search(eager, beam, steps, n_best)
    full = Patient(beam_size=beam, max_seq_len=steps)({"OUT_SIZE": n_best}, False, patient)
    assert torch.equal(ids, full["G_SENTS_IDS"])
    torch.testing.assert_close(log_probs, full["G_LOGP"])
    assert sum(eager.rows_per_step) <= sum(patient.rows_per_step)


@property_test
@hypothesis.given(
    rows=st.integers(1, 5), words=st.integers(1, 2000), count=st.integers(1, 7), seed=st.integers()
)
def test_top_words_are_the_best_words(rows, words, count, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    scores = torch.randn(rows, words, generator=generator)
    scores[:, torch.rand(words, generator=generator) < 0.2] = float("-inf")
    count = min(count, words)
    top, found = top_words(scores, count)
    assert torch.equal(top, scores.topk(count, dim=1).values)
    assert torch.equal(scores.gather(1, found), top)
    assert all(len(row.unique()) == count for row in found)


def test_top_words_pass_gradients_on():
    scores = torch.randn(2, 1000, requires_grad=True)
    top, words = top_words(scores, 3)
    top.sum().backward()
    assert torch.equal(scores.grad, torch.zeros(2, 1000).scatter(1, words, 1.0))


def test_finished_images_stop_costing(table_model, random_table):
    table = random_table(batch=8, steps=6, words=7)
    table[:7, :, :, 0] += 50.0
    table[7, :, :, 0] -= 50.0
    model = table_model(table)
    ids, _ = search(model, 3, 6)
    assert (ids[:7] == 0).all() and (ids[7] != 0).all()
    assert model.rows_per_step == [8, 3, 3, 3, 3, 3]


def test_search_ends_with_the_last_image(table_model, random_table):
    table = random_table(batch=4, steps=6, words=7)
    table[..., 0] += 50.0
    model = table_model(table)
    search(model, 3, 6)
    assert model.rows_per_step == [4]


def test_more_beams_than_words(table_model, random_table):
    table = random_table(batch=2, steps=3, words=3)
    ids, log_probs = search(table_model(table), 8, 3, 8)
    for image in range(2):
        best = all_sentences(table[image])[:4]
        assert [tuple(row) for row in ids[image, :4].tolist()] == [row for row, _ in best]
    assert not log_probs.isnan().any()


def test_end_of_sentence_other_than_zero_is_followed_by_zeros(table_model, random_table):
    table = random_table(batch=4, steps=6, words=9)
    table[..., 5] += 3.0
    ids, log_probs = search(table_model(table), 3, 6, 3, bos_token_id=4, eos_token_id=5)
    after = (ids == 5).cumsum(-1) - (ids == 5).long() > 0
    assert after.any()
    assert (ids[after] == 0).all() and (log_probs[after] == 0).all()


def test_gradients_flow_through_log_probs(table_model, random_table):
    table = random_table(batch=6, steps=5, words=7)
    table[:3, :, :, 0] += 2.0
    model = table_model(table, requires_grad=True)
    ids, log_probs = search(model, 3, 5, 3)
    weights = torch.arange(log_probs.numel()).view_as(log_probs).float()
    (log_probs * weights).sum().backward()

    again = table.detach().clone().requires_grad_()
    expected = again.log_softmax(-1)
    total = 0.0
    for image, rank in itertools.product(range(6), range(3)):
        previous = 0
        for time, word in enumerate(ids[image, rank].tolist()):
            total = total + weights[image, rank, time] * expected[image, time, previous, word]
            previous = word
            if word == 0:
                break
    total.backward()
    torch.testing.assert_close(table.grad, again.grad)


def test_length_penalty_ranks_by_score_per_length(table_model, random_table):
    table = random_table(batch=5, steps=4, words=3, scale=1.0)
    table[..., 0] += 1.0
    alpha = 1.0
    width = 3**4
    ids, log_probs = search(table_model(table), width, 4, length_penalty=alpha)
    shortest, _ = search(table_model(table), width, 4)
    for image in range(5):
        sentences = all_sentences(table[image])

        def rank(item):
            sentence, score = item
            length = sentence.index(0) + 1 if 0 in sentence else len(sentence)
            return score / length**alpha

        best, score = max(sentences, key=rank)
        assert tuple(ids[image].tolist()) == best
        assert log_probs[image].sum().item() == pytest.approx(score, abs=1e-4)
    assert (ids != 0).sum() > (shortest != 0).sum()


def test_no_repeat_ngram(table_model):
    table = torch.zeros(1, 8, 5, 5)
    table[..., 1, 2] = table[..., 2, 1] = table[..., 0, 1] = 6.0
    table[..., 0] = -3.0
    free, _ = search(table_model(table), 2, 8)
    assert free[0].tolist() == [1, 2, 1, 2, 1, 2, 1, 2]
    for n in (1, 2, 3):
        ids, _ = search(table_model(table), 2, 8, 2, no_repeat_ngram=n)
        for row in ids[0].tolist():
            words = row[: row.index(0)] if 0 in row else row
            ngrams = [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]
            assert len(ngrams) == len(set(ngrams))


def test_suppressed_words_never_come_and_scores_stay_the_models(table_model, random_table):
    table = random_table(batch=4, steps=5, words=6)
    ids, log_probs = search(table_model(table), 3, 5, suppress_words=[2, 4])
    assert not torch.isin(ids, torch.tensor([2, 4])).any()
    first = table.log_softmax(-1)[torch.arange(4), 0, 0, ids[:, 0]]
    torch.testing.assert_close(log_probs[:, 0], first)


def test_attention_of_the_best_hypothesis_follows_its_beams(table_model, random_table):
    table = random_table(batch=4, steps=5, words=6)
    searcher = BeamSearcher(beam_size=3, max_seq_len=5)
    out = searcher({"RETURN_ATTENTION": True}, False, table_model(table))
    ids, maps = out["G_SENTS_IDS"], out["ATTENTION_MAPS"]
    assert maps.shape == (4, 5, 3)
    for image in range(4):
        inputs = [0, *ids[image].tolist()]
        for time in range(5):
            expected = [sum(inputs[: time + 1]) / (time + 1), inputs[time], image]
            assert maps[image, time].tolist() == pytest.approx(expected)
            if inputs[time + 1] == 0:
                break


def test_attention_survives_images_leaving_the_batch(table_model, random_table):
    table = random_table(batch=4, steps=5, words=6)
    table[:3, :, :, 0] += 50.0
    table[3, :, :, 0] -= 50.0
    searcher = BeamSearcher(beam_size=3, max_seq_len=5)
    out = searcher({"RETURN_ATTENTION": True}, False, table_model(table))
    assert out["ATTENTION_MAPS"].shape == (4, 5, 3)
    assert (out["ATTENTION_MAPS"][:3, 1:] == 0).all()
    assert out["ATTENTION_MAPS"][3, 1:, 1].tolist() == out["G_SENTS_IDS"][3, :-1].tolist()


def test_the_batch_is_kept_and_not_edited(table_model, random_table):
    batch = {"IDS": ["a", "b", "c"]}
    out = BeamSearcher(beam_size=2, max_seq_len=4)(batch, False, table_model(random_table()))
    assert set(batch) == {"IDS"}
    assert out["IDS"] == ["a", "b", "c"]
    assert out["SEMANTICS_PRED"].shape == (3, 5)


def test_n_best_beyond_the_beams_is_refused(table_model, random_table):
    with pytest.raises(UserError, match="OUT_SIZE is 4"):
        search(table_model(random_table()), 3, 4, n_best=4)
