"""Rewards of batches of word ids."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodaler.config import get_cfg, kfg
from xmodaler.evaluation.bleu import corpus_bleu
from xmodaler.evaluation.rouge import rouge_l
from xmodaler.scorer import (
    SCORER_REGISTRY,
    BaseScorer,
    Bleu4,
    Cider,
    Reward,
    RougeL,
    build_scorer,
)
from xmodaler.scorer.cider_files import write_frequencies, write_references
from xmodaler.scorer.ngram_table import NgramTable
from xmodaler.utils.errors import UserError

TOLERANCE = {"rtol": 0, "atol": 1e-9}


def sentences_like(references, rng, count, words=34):
    """Sentences between a reference and nonsense, with repeated and unknown words."""
    names = list(references)
    ids, made = [], []
    for _ in range(count):
        name = names[rng.integers(len(names))]
        sentence = list(references[name][rng.integers(len(references[name]))])
        for _ in range(rng.integers(0, 6)):
            place = rng.integers(len(sentence) + 1)
            sentence.insert(place, int(rng.integers(1, words)))
        if rng.random() < 0.3:
            sentence = sentence[: rng.integers(0, len(sentence) + 1)]
        if rng.random() < 0.3:
            sentence = sentence + sentence
        ids.append(name)
        made.append(sentence)
    return ids, made


@pytest.mark.parametrize("known", [40, 25], ids=["same images", "more documents than references"])
def test_cider_is_that_of_plain_dictionaries(plain, cider_file, known):
    """Unknown n-grams, repeated ones, sentences from empty to long, any number of references."""
    everything = plain.random_references(40, seed=1)
    references = dict(list(everything.items())[:known])
    cider = Cider(cider_cached=cider_file(everything))
    table, log_images = plain.count_documents(everything.values()), math.log(40)
    oracle = plain.Cider(table, log_images)
    ids, sentences = sentences_like(references, np.random.default_rng(2), 300)
    assert any(not words for words in sentences) and max(map(len, sentences)) > 25
    expected = [oracle.score(w, references[i]) for i, w in zip(ids, sentences, strict=True)]
    mean, scores = cider.compute_score([references[i] for i in ids], sentences)
    np.testing.assert_allclose(scores, expected, **TOLERANCE)
    assert mean == pytest.approx(np.mean(expected), abs=1e-9)
    assert max(expected) > 3 and scores.dtype == np.float64

    scorer = base_scorer([cider], references)
    padded = np.full((300, 40), 0)
    for row, words in zip(padded, sentences, strict=True):
        row[: len(words)] = words
    rewards = scorer({kfg.IDS: ids, kfg.G_SENTS_IDS: torch.from_numpy(padded)})[kfg.REWARDS]
    kept = scorer.get_sents(padded)
    expected = [oracle.score(w, references[i]) for i, w in zip(ids, kept, strict=True)]
    np.testing.assert_allclose(rewards, expected, **TOLERANCE)


captions = st.lists(st.lists(st.integers(0, 4), min_size=0, max_size=7), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(st.lists(captions, min_size=1, max_size=4), st.lists(st.integers(0, 6), max_size=9))
def test_any_captions_score_as_with_dictionaries(plain, tmp_path_factory, references, sentence):
    path = tmp_path_factory.mktemp("cider") / "cider.json"
    table = plain.count_documents(references)
    write_frequencies(path, table, math.log(len(references) + 1))
    _, scores = Cider(cider_cached=str(path)).compute_score(
        references, [sentence] * len(references)
    )
    oracle = plain.Cider(table, math.log(len(references) + 1))
    expected = [oracle.score(sentence, own) for own in references]
    np.testing.assert_allclose(scores, expected, **TOLERANCE)


def test_bleu_and_rouge_are_those_of_the_evaluation(plain):
    references = plain.random_references(20, seed=3)
    ids, sentences = sentences_like(references, np.random.default_rng(4), 150)
    sentences = [words or [3] for words in sentences]
    truth = [references[name] for name in ids]
    _, per_sentence = corpus_bleu(sentences, truth)
    _, bleu = Bleu4().compute_score(truth, sentences)
    np.testing.assert_allclose(bleu, [scores[3] for scores in per_sentence], **TOLERANCE)
    _, rouge = RougeL().compute_score(truth, sentences)
    expected = [rouge_l(*pair) for pair in zip(sentences, truth, strict=True)]
    np.testing.assert_allclose(rouge, expected, **TOLERANCE)
    assert max(bleu) > 0.5 and np.unique(np.round(rouge, 6)).size > 50


def base_scorer(scorers, references, weights=None, **options):
    names = [type(scorer).__name__ for scorer in scorers]
    weights = weights or [1.0] * len(names)
    options = {"eos_id": 0, **options}
    return BaseScorer(types=names, scorers=scorers, weights=weights, gt_path=references, **options)


def test_a_mixture_is_the_weighted_sum(plain, cider_file):
    references = plain.random_references(12, seed=5)
    cider = Cider(cider_cached=cider_file(references))
    parts = [cider, Bleu4(), RougeL()]
    ids = list(references)[:3]
    rows = [references[name][0][:4] for name in ids for _ in range(2)]
    rows = [row + [0] * (5 - len(row)) for row in rows]
    batch = {kfg.IDS: ids, kfg.G_SENTS_IDS: torch.tensor(rows)}
    mixed = base_scorer(parts, references, [2.0, 0.5, 0.25])(batch)
    alone = [base_scorer([part], references)(batch) for part in parts]
    total = sum(w * one[kfg.REWARDS] for w, one in zip([2.0, 0.5, 0.25], alone, strict=True))
    np.testing.assert_allclose(mixed[kfg.REWARDS], total, **TOLERANCE)
    for name, one in zip(["Cider", "Bleu4", "RougeL"], alone, strict=True):
        assert mixed[name] == pytest.approx(one[kfg.REWARDS].mean())
    beams = {**batch, kfg.G_SENTS_IDS: batch[kfg.G_SENTS_IDS].view(3, 2, -1)}
    np.testing.assert_array_equal(
        base_scorer(parts, references, [2.0, 0.5, 0.25])(beams)[kfg.REWARDS], mixed[kfg.REWARDS]
    )


def test_the_end_word_counts_unless_told_otherwise(plain, cider_file):
    references = plain.random_references(12, seed=6)
    path = cider_file(references)
    name = next(iter(references))
    words = [[*references[name][0][:-1], 0, 5, 0]]
    batch = {kfg.IDS: [name], kfg.G_SENTS_IDS: torch.tensor(words)}
    table, log_images = plain.count_documents(references.values()), math.log(12)
    oracle = plain.Cider(table, log_images)
    for counts in (True, False):
        scorer = base_scorer([Cider(cider_cached=path)], references, count_eos=counts)
        cut = slice(None) if counts else slice(-1)
        truth = [caption[cut] for caption in references[name]]
        expected = oracle.score(references[name][0][cut], truth)
        assert scorer(batch)[kfg.REWARDS] == pytest.approx([expected], abs=1e-9)


def test_nothing_grows(plain, cider_file):
    """Neither unseen n-grams nor scored sentences are remembered."""
    references = plain.random_references(10, seed=7)
    scorer = base_scorer([Cider(cider_cached=cider_file(references))], references)
    cider = scorer._metrics[0]
    tables = (scorer.references.ngrams(4).table, cider.others)
    before = [len(table) for table in tables]
    names = vars(scorer).keys() | vars(cider).keys() | vars(scorer.references).keys()
    for seed in range(3):
        words = np.random.default_rng(seed).integers(0, 90, size=(20, 15))
        scorer({kfg.IDS: list(references), kfg.G_SENTS_IDS: words})
    assert [len(table) for table in tables] == before
    assert names == vars(scorer).keys() | vars(cider).keys() | vars(scorer.references).keys()


def config(tmp_path, references, types=("Cider",), weights=(1.0,), frequencies=None):
    import xmodaler.scorer.cider_files as files

    table, log_images = files.count_documents(frequencies or references)
    write_frequencies(tmp_path / "df.json", table, log_images)
    write_references(tmp_path / "gts.json", references)
    cfg = get_cfg()
    cfg.SCORER.NAME = "BaseScorer"
    cfg.SCORER.TYPES, cfg.SCORER.WEIGHTS = list(types), list(weights)
    cfg.SCORER.GT_PATH = str(tmp_path / "gts.json")
    cfg.SCORER.CIDER_CACHED = str(tmp_path / "df.json")
    return cfg


def test_a_config_names_the_reward(plain, tmp_path):
    references = plain.random_references(10, seed=8)
    cfg = config(tmp_path, references, ("Cider", "Bleu4"), (0.5, 2.0))
    scorer = build_scorer(cfg)
    name = next(iter(references))
    words = torch.tensor([references[name][0]])
    scores = scorer({kfg.IDS: [name], kfg.G_SENTS_IDS: words})
    assert scores[kfg.REWARDS][0] == pytest.approx(0.5 * scores["Cider"] + 2 * scores["Bleu4"])


def test_own_metrics_need_only_compute_score(plain):
    class Length:
        def compute_score(self, gts, res):
            assert all(isinstance(own[0], list) for own in gts)
            scores = np.array([float(len(words)) for words in res])
            return scores.mean(), scores

    references = plain.random_references(3, seed=9)
    batch = {
        kfg.IDS: list(references),
        kfg.G_SENTS_IDS: torch.tensor([[1, 0, 0], [0, 0, 0], [1, 2, 3]]),
    }
    assert base_scorer([Length()], references)(batch)[kfg.REWARDS].tolist() == [2.0, 1.0, 3.0]


def test_mistakes_are_told(plain, tmp_path):
    references = plain.random_references(30, seed=10)
    scorer = build_scorer(config(tmp_path, references))
    words = torch.ones(4, 5, dtype=torch.long)
    with pytest.raises(UserError, match="image 'nobody' has no reference"):
        scorer({kfg.IDS: ["nobody"], kfg.G_SENTS_IDS: words})
    with pytest.raises(UserError, match="4 sentences do not divide over 3 images"):
        scorer({kfg.IDS: list(references)[:3], kfg.G_SENTS_IDS: words})
    with pytest.raises(UserError, match="one weight for each"):
        build_scorer(config(tmp_path, references, weights=(1.0, 2.0)))
    with pytest.raises(UserError, match=r"SCORER.NAME is empty"):
        build_scorer(get_cfg())
    cfg = config(tmp_path, references)
    cfg.MODEL.VOCAB_SIZE = 20
    with pytest.raises(UserError, match=r"the model knows 20 \(MODEL.VOCAB_SIZE\)"):
        build_scorer(cfg)
    with pytest.raises(UserError, match="has no caption"):
        base_scorer([Bleu4()], {"a": [[1, 0]], "b": []})


def test_frequencies_of_another_vocabulary_are_refused(plain, tmp_path):
    references = plain.random_references(30, seed=11)
    shuffled = np.random.default_rng(0).permutation(np.arange(1, 31)).tolist()
    others = {
        name: [[shuffled[word - 1] if word else 0 for word in words] for words in own]
        for name, own in references.items()
    }
    with pytest.raises(UserError, match="another vocabulary"):
        build_scorer(config(tmp_path, references, frequencies=others))


def test_a_reward_that_is_no_number_stops(plain):
    class Broken:
        def compute_score(self, gts, res):
            return 0.0, np.array([1.0, float("nan")])

    references = plain.random_references(2, seed=12)
    scorer = base_scorer([Broken()], references)
    with pytest.raises(
        UserError, match="the reward Broken of a sentence for image 'image1' is nan"
    ):
        scorer({kfg.IDS: list(references), kfg.G_SENTS_IDS: torch.ones(2, 3, dtype=torch.long)})


def test_a_reward_that_is_constant_is_refused(plain):
    class Constant:
        def compute_score(self, gts, res):
            return 1.0, np.ones(len(res))

    references = plain.random_references(4, seed=13)
    targets = torch.full((4, 20), -1)
    for row, captions in zip(targets, references.values(), strict=True):
        row[: len(captions[0])] = torch.tensor(captions[0])
    base_scorer([Bleu4()], references).check_captions(list(references), targets)
    with pytest.raises(UserError, match=r"is 1 for the captions .* and for empty sentences alike"):
        base_scorer([Constant()], references).check_captions(list(references), targets)


def test_numbers_of_ngrams_are_exact():
    """Members are told from every other n-gram over the same and over unknown words."""
    rng = np.random.default_rng(0)
    words = rng.choice([0, 3, 70000, 12], size=(9, 500))
    table = NgramTable(np.unique(words), 4)
    codes = table.codes(words)
    members = [code[: 9 - n, 0:500:2].ravel() for n, code in enumerate(codes)]
    table.fill(np.concatenate(members))
    ngrams = {
        tuple(words[t : t + n, r])
        for n in range(1, 5)
        for r in range(0, 500, 2)
        for t in range(9 - n + 1)
    }
    assert len(table) == len(ngrams)
    numbers = {}
    asked = np.concatenate([words, rng.integers(0, 90000, size=(9, 500))], axis=1)
    for n, code in enumerate(table.codes(asked), 1):
        found = table.find(code.ravel()).reshape(code.shape)
        for (t, r), number in np.ndenumerate(found[: 10 - n]):
            ngram = tuple(asked[t : t + n, r])
            assert (number >= 0) == (ngram in ngrams)
            if number >= 0:
                assert numbers.setdefault(ngram, number) == number
    assert sorted(numbers.values()) == list(range(len(ngrams)))
    with pytest.raises(UserError, match="too many"):
        NgramTable(np.arange(60_000), 4)


def test_registry_holds_what_configs_name():
    names = {name for name, _ in SCORER_REGISTRY}
    assert names >= {"BaseScorer", "Cider", "Bleu4", "RougeL"}
    for name, method in (("Bleu4", "BLEU-4"), ("RougeL", "ROUGE-L")):
        metric = SCORER_REGISTRY.get(name)(get_cfg())
        assert isinstance(metric, Reward) and metric.method() == method
