"""Greedy decoding and sampling on table language models."""

import itertools

import pytest
import torch

from xmodaler.modeling.decode_strategy import GreedyDecoder


def decode(model, steps, batch=None, **options):
    return GreedyDecoder(max_seq_len=steps, **options)(batch or {}, False, model)


def test_greedy_takes_the_best_word_until_every_row_is_finished(table_model, random_table):
    table = random_table(batch=5, steps=6, words=7)
    table[:, 3, :, 0] += 50.0
    model = table_model(table)
    out = decode(model, 6)
    ids, log_probs = out["G_SENTS_IDS"], out["G_LOGP"]
    assert len(model.rows_per_step) == 4
    assert (ids[:, 3:] == 0).all() and (log_probs[:, 4:] == 0).all()
    for image in range(5):
        previous = 0
        for time in range(4):
            expected = table[image, time, previous].log_softmax(-1)
            assert log_probs[image, time].item() == pytest.approx(expected.max().item(), abs=1e-5)
            word = expected.argmax().item() if not (ids[image, :time] == 0).any() else 0
            assert ids[image, time].item() == word
            previous = word


def test_looking_rarely_for_the_end_changes_nothing(table_model, random_table):
    class Rarely(GreedyDecoder):
        def steps_between_checks(self, device):
            return 4

    table = random_table(batch=5, steps=8, words=5)
    table[:, 4, :, 0] += 50.0
    expected = decode(table_model(table), 8)
    out = Rarely(max_seq_len=8)({}, False, table_model(table))
    assert torch.equal(out["G_SENTS_IDS"], expected["G_SENTS_IDS"])
    assert torch.equal(out["G_LOGP"], expected["G_LOGP"])


def test_end_of_sentence_other_than_zero_fills_the_rest(table_model, random_table):
    table = random_table(batch=4, steps=6, words=9)
    table[:, 2, :, 5] += 50.0
    ids = decode(table_model(table), 6, bos_token_id=4, eos_token_id=5)["G_SENTS_IDS"]
    assert (ids[:, 2:] == 5).all()


def test_samples_follow_the_model(table_model):
    probabilities = torch.tensor([0.1, 0.2, 0.3, 0.4])
    table = probabilities.log().expand(1, 1, 4, 4).contiguous()
    torch.manual_seed(0)
    batch = {"DECODE_BY_SAMPLE": True, "SAMPLES_PER_IMAGE": 20_000}
    out = decode(table_model(table), 1, batch)
    counts = torch.bincount(out["G_SENTS_IDS"][:, 0], minlength=4) / 20_000
    torch.testing.assert_close(counts, probabilities, atol=0.015, rtol=0)
    torch.testing.assert_close(out["G_LOGP"].exp(), probabilities[out["G_SENTS_IDS"]])


def test_one_draw_for_all_rows_of_a_step(table_model, random_table):
    table = random_table(batch=4, steps=5, words=6)
    torch.manual_seed(3)
    ids = decode(table_model(table), 5, {"DECODE_BY_SAMPLE": True})["G_SENTS_IDS"]
    torch.manual_seed(3)
    words, unfinished = torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool)
    for time in range(5):
        probabilities = table[torch.arange(4), time, words].softmax(-1)
        words = torch.multinomial(probabilities, 1).squeeze(1)
        unfinished &= words != 0
        words = words * unfinished
        assert torch.equal(ids[:, time], words)


def test_several_samples_share_an_image_and_are_adjacent(table_model, random_table):
    table = random_table(batch=3, steps=4, words=6)
    model = table_model(table)
    torch.manual_seed(0)
    batch = {"DECODE_BY_SAMPLE": True, "SAMPLES_PER_IMAGE": 5}
    out = decode(model, 4, batch)
    ids, log_probs = out["G_SENTS_IDS"], out["G_LOGP"]
    assert ids.shape == log_probs.shape == (15, 4)
    first = table[:, 0, 0].log_softmax(-1).repeat_interleave(5, 0)
    torch.testing.assert_close(log_probs[:, 0], first.gather(1, ids[:, :1]).squeeze(1))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"top_k": 2}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.65}, [0, 0, 3 / 7, 4 / 7]),
        ({"top_p": 0.75}, [0, 2 / 9, 3 / 9, 4 / 9]),
        ({"top_p": 1e-6}, [0, 0, 0, 1]),
        ({"temperature": 0.5}, [1 / 30, 4 / 30, 9 / 30, 16 / 30]),
        ({"top_k": 3, "top_p": 0.7}, [0, 0, 3 / 7, 4 / 7]),
        ({"suppress_words": [3], "top_k": 2}, [0, 2 / 5, 3 / 5, 0]),
    ],
)
def test_truncated_distributions(table_model, options, expected):
    table = torch.tensor([0.1, 0.2, 0.3, 0.4]).log().expand(1, 1, 4, 4).contiguous()
    torch.manual_seed(0)
    batch = {"DECODE_BY_SAMPLE": True, "SAMPLES_PER_IMAGE": 500}
    out = decode(table_model(table), 1, batch, **options)
    expected = torch.tensor(expected, dtype=torch.float32)
    drawn = out["G_SENTS_IDS"][:, 0]
    assert set(drawn.tolist()) == set(expected.nonzero().squeeze(1).tolist())
    torch.testing.assert_close(out["G_LOGP"][:, 0].exp(), expected[drawn])


def test_gradients_flow_through_sampled_log_probs(table_model, random_table):
    model = table_model(random_table(), requires_grad=True)
    out = decode(model, 4, {"DECODE_BY_SAMPLE": True})
    out["G_LOGP"].sum().backward()
    assert model.table.grad.abs().sum() > 0


def test_no_repeat_ngram_and_suppressed_words(table_model):
    table = torch.zeros(1, 8, 5, 5)
    table[..., 1, 2] = table[..., 2, 1] = table[..., 0, 1] = 6.0
    table[..., 0] = -3.0
    ids = decode(table_model(table), 8, no_repeat_ngram=2)["G_SENTS_IDS"][0].tolist()
    pairs = list(itertools.pairwise(ids))
    words = [pair for pair in pairs if 0 not in pair]
    assert len(words) == len(set(words))
    assert 1 not in decode(table_model(table), 8, suppress_words=[1])["G_SENTS_IDS"]


def test_attention_maps(table_model, random_table):
    batch = {"RETURN_ATTENTION": True}
    out = decode(table_model(random_table(batch=2, steps=4)), 6 - 2, batch)
    ids, maps = out["G_SENTS_IDS"], out["ATTENTION_MAPS"]
    assert maps.shape == (2, 4, 3)
    assert (maps[:, 0, 1] == 0).all() and maps[:, 1, 1].tolist() == ids[:, 0].tolist()


def test_encoder_outputs_are_returned_and_the_batch_is_not_edited(table_model, random_table):
    batch = {"IDS": ["a", "b", "c"]}
    out = decode(table_model(random_table()), 4, batch)
    assert set(batch) == {"IDS"}
    assert out["IDS"] == ["a", "b", "c"] and out["SEMANTICS_PRED"].shape == (3, 5)
