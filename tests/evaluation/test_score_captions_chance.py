"""Intervals, tests and diversity: by hand, against direct resampling, and by their meaning."""

import math

import numpy as np
import pytest

from xmodaler.evaluation import compare_captions, score_captions
from xmodaler.evaluation.bleu import bleu_counts, bleu_from_counts, corpus_bleu
from xmodaler.evaluation.caption_metrics import measure
from xmodaler.evaluation.diversity import diversity, length_statistics, self_cider
from xmodaler.evaluation.resampling import ScoreSums, bootstrap, compare
from xmodaler.scorer import CiderD

WORDS = "a the dog cat man red blue runs sits on in park ball house".split()  # noqa: SIM905


def corpus(size, seed, noise=0.4):
    """Sentences, two references each, and captions that copy one of them with errors."""
    rng = np.random.default_rng(seed)
    truth = [[list(rng.choice(WORDS, size=rng.integers(5, 10))) for _ in "ab"] for _ in range(size)]
    return truth, [disturbed(own[0], noise, rng) for own in truth]


def disturbed(words, noise, rng):
    return [str(rng.choice(WORDS)) if rng.random() < noise else word for word in words]


def columns(truth, own, metrics=("BLEU", "ROUGE_L", "CIDEr")):
    joined = [[" ".join(words) for words in others] for others in truth]
    return measure([" ".join(words) for words in own], joined, metrics)


def test_bleu_of_counts_is_bleu():
    truth, own = corpus(30, 1)
    counts = bleu_counts(own, truth)
    totals, rows = corpus_bleu(own, truth)
    assert counts.shape == (30, 10)
    assert bleu_from_counts(counts.sum(0)).tolist() == totals
    assert bleu_from_counts(counts[:, None])[:, 0].tolist() == rows
    # Doubling a corpus changes nothing.
    assert bleu_from_counts(2 * counts.sum(0)) == pytest.approx(totals, abs=1e-9)


def test_the_bootstrap_scores_the_drawn_images_anew():
    truth, own = corpus(12, 2)
    found = columns(truth, own)
    sums = ScoreSums(found)
    drawn = bootstrap(sums, 5, seed=3)
    rng = np.random.default_rng([3, 0])
    cider = CiderD.from_references(truth)  # its document frequencies stay those of all images
    for row, chosen in zip(drawn, rng.integers(0, 12, size=(5, 12)), strict=True):
        some, others = [own[i] for i in chosen], [truth[i] for i in chosen]
        bleu = corpus_bleu(some, others)[0]
        expected = {f"Bleu_{order}": value for order, value in enumerate(bleu, 1)}
        expected["CIDEr"] = cider.scores(some, others).mean()
        expected["ROUGE_L"] = columns(others, some, ["ROUGE_L"]).corpus["ROUGE_L"]
        assert dict(zip(sums.names, row, strict=True)) == pytest.approx(expected, abs=1e-9)


def test_large_sets_are_drawn_in_parts(monkeypatch):
    sums = ScoreSums(columns(*corpus(12, 2)))
    whole = bootstrap(sums, 50, seed=3)
    monkeypatch.setattr("xmodaler.evaluation.resampling._MOST_ENTRIES", 12 * 7)
    parts = bootstrap(sums, 50, seed=3)
    assert parts.shape == whole.shape == (50, 6)
    assert parts == pytest.approx(whole, abs=1e-12)


def test_meteor_moves_with_the_mean_of_the_images():
    found = columns(*corpus(10, 4), ["ROUGE_L"])
    found.add("METEOR", 0.3, np.linspace(0.1, 0.4, 10))
    sums = ScoreSums(found)
    assert sums.scores(sums.rows.sum(0))[1] == pytest.approx(0.3)
    drawn = bootstrap(sums, 200, seed=0)[:, 1]
    assert drawn.mean() == pytest.approx(0.3, abs=0.01) and drawn.std() > 0.01


def test_where_meteor_lies_does_not_decide_what_chance_does():
    pair = []
    for corpus_score in (0.3, 0.9):
        found = columns(*corpus(10, 4), ["ROUGE_L"])
        found.add("METEOR", corpus_score, np.linspace(0.1, 0.4, 10))
        pair.append(found)
    found = compare(*pair, 50, 0.95, 0)["METEOR"]
    assert found.difference == pytest.approx(-0.6) and found.p_randomization == 1


def test_the_interval_covers_the_score_of_another_sample():
    # Of many corpora from one source, a 90 % interval misses the true score about one in ten times.
    truth, own = corpus(4000, 5)
    found = columns(truth, own, ["ROUGE_L"]).per_image["ROUGE_L"]
    hits = 0
    for start in range(0, 4000, 40):
        part = slice(start, start + 40)
        small = columns(truth[part], own[part], ["ROUGE_L"])
        low, high = np.quantile(bootstrap(ScoreSums(small), 200, seed=start), [0.05, 0.95])
        hits += low <= found.mean() <= high
    assert 80 <= hits <= 98


def test_a_better_system_is_told_from_an_equal_one():
    truth, good = corpus(120, 6, noise=0.3)
    rng = np.random.default_rng(7)
    bad = [disturbed(own[0], 0.6, rng) for own in truth]
    equal = [disturbed(own[0], 0.3, rng) for own in truth]
    better = compare(columns(truth, good), columns(truth, bad), 400, 0.95, seed=0)
    same = compare(columns(truth, good), columns(truth, equal), 400, 0.95, seed=0)
    for name in ("Bleu_4", "ROUGE_L", "CIDEr"):
        assert better[name].p_bootstrap < 0.01 and better[name].p_randomization < 0.01
        assert better[name].low > 0
        assert same[name].p_bootstrap > 0.05 and same[name].p_randomization > 0.05
        assert same[name].low < 0 < same[name].high
    other_way = compare(columns(truth, bad), columns(truth, good), 400, 0.95, seed=0)
    assert other_way["CIDEr"].difference == pytest.approx(-better["CIDEr"].difference)
    assert other_way["CIDEr"].p_randomization == better["CIDEr"].p_randomization


def test_p_values_of_a_true_null_hypothesis_are_even():
    rng = np.random.default_rng(8)
    values = {"p_bootstrap": [], "p_randomization": []}
    for seed in range(100):
        truth, first = corpus(40, 1000 + seed)
        second = [disturbed(own[0], 0.4, rng) for own in truth]
        pair = columns(truth, first, ["ROUGE_L"]), columns(truth, second, ["ROUGE_L"])
        found = compare(*pair, 200, 0.95, seed)["ROUGE_L"]
        values["p_bootstrap"].append(found.p_bootstrap)
        values["p_randomization"].append(found.p_randomization)
    for found in values.values():
        assert np.mean(np.array(found) < 0.1) < 0.22
        assert 0.35 < np.mean(found) < 0.65


def test_randomization_by_hand():
    # One image, A scores 1 and B 0: half of the exchanges keep the sign, all keep the size.
    pair = (
        columns([[["a", "b"]]], [["a", "b"]], ["ROUGE_L"]),
        columns([[["a"]]], [["x"]], ["ROUGE_L"]),
    )
    assert compare(*pair, 50, 0.95, 0)["ROUGE_L"].p_randomization == 1
    # Five images: the observed difference appears in 2 of 32 exchanges, all or none.
    truth = [[["a", "b"]]] * 5
    pair = columns(truth, [["a", "b"]] * 5, ["ROUGE_L"]), columns(truth, [["x"]] * 5, ["ROUGE_L"])
    found = compare(*pair, 4000, 0.95, 0)["ROUGE_L"]
    assert found.p_randomization == pytest.approx(2 / 32, abs=0.015)
    assert found.difference == 1 and found.p_bootstrap == pytest.approx(2 / 4001)


def test_the_seed_decides():
    truth, own = corpus(20, 9)
    references = {i: [" ".join(words) for words in others] for i, others in enumerate(truth)}
    captions = {i: " ".join(words) for i, words in enumerate(own)}
    other = {i: " ".join(reversed(words)) for i, words in enumerate(own)}
    reports = [
        compare_captions(references, {"a": captions, "b": other}, samples=100, seed=seed).to_dict()
        for seed in (1, 1, 2)
    ]
    assert reports[0] == reports[1]
    assert reports[0]["systems"]["a"]["intervals"] != reports[2]["systems"]["a"]["intervals"]
    wide = score_captions(references, captions, samples=100, confidence=0.99).intervals["CIDEr"]
    narrow = score_captions(references, captions, samples=100, confidence=0.5).intervals["CIDEr"]
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_metrics_that_one_system_lacks_are_not_compared():
    truth, own = corpus(10, 4)
    both, one = columns(truth, own), columns(truth, own, ["CIDEr"])
    assert list(compare(both, one, 20, 0.95, 0)) == ["CIDEr"]
    assert list(compare(one, both, 20, 0.95, 0)) == ["CIDEr"]


def test_diversity_by_hand():
    captions = [[["a", "dog"]], [["a", "dog"]], [["a", "cat", "sits"]]]
    found = diversity(captions, training={"a cat sits"})
    assert found["vocabulary"] == 4
    assert found["distinct_1"] == pytest.approx(4 / 7)
    assert found["distinct_2"] == pytest.approx(3 / 4)
    assert found["unique"] == pytest.approx(2 / 3) and found["novel"] == pytest.approx(2 / 3)
    assert "self_cider" not in found
    several = diversity([[["a", "b"], ["a", "c"]], [["a", "b"], ["a", "b"]]])
    assert several["div_1"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert several["div_2"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert diversity([[[]]])["distinct_2"] == 0


def test_self_cider_by_hand():
    truth = [[["a", "b", "c", "d"]], [["e", "f", "g", "h"]]]
    same, different = [list("abcd")] * 3, [list("abcd"), list("efgh")]
    assert self_cider([same, different], truth) == pytest.approx([0, 1], abs=1e-9)
    # Two captions with similarity s: eigenvalues 1 + s and 1 - s of the kernel.
    pair = [list("abcd"), list("abcx")]
    cosine = (3 / 4 + 2 / 3 + 1 / 2 + 0) / 4
    # x is in no reference: its weight is log 2 as well, since a count of 0 counts as 1.
    roots = math.sqrt(1 + cosine), math.sqrt(1 - cosine)
    expected = -math.log(roots[0] / sum(roots)) / math.log(2)
    assert self_cider([pair], truth)[0] == pytest.approx(expected)
    assert self_cider([[[], []]], truth).tolist() == [0]


def test_lengths_by_hand():
    found = length_statistics([list("abc"), [], list("abc"), list("ab")], [[list("abcd")]])
    assert found["mean"] == 2 and found["median"] == 2.5 and (found["min"], found["max"]) == (0, 3)
    assert found["empty"] == 1 and found["histogram"] == {"0": 1, "2": 1, "3": 2}
    assert found["std"] == pytest.approx(math.sqrt((1 + 4 + 1 + 0) / 4))
    assert found["reference_mean"] == 4
