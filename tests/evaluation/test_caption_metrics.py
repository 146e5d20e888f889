"""BLEU, ROUGE-L, CIDEr: hand-computed cases, reference implementations and published scores."""

import itertools
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xmodaler.evaluation import java_metrics
from xmodaler.evaluation.bleu import corpus_bleu
from xmodaler.evaluation.caption_metrics import ALL_METRICS, score, score_with_reasons
from xmodaler.evaluation.rouge import longest_common_subsequence, rouge_l
from xmodaler.scorer import CiderD, count_ngrams, document_frequencies
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("XMODALER_DATA_DIR", ROOT.parent / "shared" / "data"))
WORDS = st.lists(st.sampled_from("abcde"), max_size=12)
SOME_WORDS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=12)


def references_of(path):
    content = json.loads(Path(path).read_text())
    references = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        references[annotation["image_id"]].append(annotation["caption"])
    return references


def test_bleu_by_hand():
    # 4 of 5 unigrams, 3 of 4 bigrams, 2 of 3 trigrams, 1 of 2 4-grams; as long as the reference.
    totals, rows = corpus_bleu([list("abcdx")], [[list("abcde"), list("zz")]])
    expected = [0.8, 0.8 * 0.75, 0.8 * 0.75 * 2 / 3, 0.8 * 0.75 * 2 / 3 / 2]
    assert totals == pytest.approx([p ** (1 / k) for k, p in enumerate(expected, 1)], abs=1e-6)
    assert rows == [totals]


def test_bleu_brevity_and_clipping():
    # "a a a" may match the two a's of the reference twice; 3 words against 5: exp(1 - 5/3).
    totals, _ = corpus_bleu([list("aaa")], [[list("aabbb")]])
    assert totals[0] == pytest.approx(2 / 3 * math.exp(1 - 5 / 3), abs=1e-6)
    # The closest length wins, in a tie the shorter: 4 words against 3 and 5 have no penalty.
    totals, _ = corpus_bleu([list("abcd")], [[list("abcde"), list("abc")]])
    assert totals[0] == pytest.approx(1, abs=1e-6)


def test_rouge_by_hand():
    # LCS "a c" = 2: P = 2/3 and R = 2/4 of one reference; b^2 = 1.44.
    expected = 2.44 * (2 / 3) * 0.5 / (0.5 + 1.44 * 2 / 3)
    assert rouge_l(list("abc"), [list("axcy")]) == pytest.approx(expected)
    assert rouge_l(list("ab"), [list("cd")]) == 0
    assert rouge_l(list("ab"), [list("ab"), list("cd")]) == pytest.approx(1)


def test_cider_by_hand():
    # Two images, each word in one of them only: every weight is log 2 and cosines count words.
    cider = CiderD.from_references([["ab"], ["cd"]])
    assert cider.score("ab", ["ab"]) == pytest.approx(10 * 2 / 4)  # orders 3 and 4 are empty
    # "a": unigram cosine 1/sqrt(2), penalty exp(-1/72) for one bigram less.
    expected = 10 / 4 * math.exp(-1 / 72) / math.sqrt(2)
    assert cider.score("a", ["ab"]) == pytest.approx(expected)
    # Clipping: "aa" holds (2,0) against (1,1): min(2,1)*1 / (2 * sqrt 2), no common bigram.
    assert cider.score("aa", ["ab"]) == pytest.approx(10 / 4 / (2 * math.sqrt(2)))
    assert cider.score("", ["ab"]) == 0


def test_cider_takes_word_ids_and_cached_frequencies():
    frequencies = document_frequencies([[[5, 7, 0]], [[5, 8, 0]]])
    assert frequencies[(5,)] == 2 and frequencies[(5, 7)] == 1 and frequencies[(0,)] == 2
    cider = CiderD(frequencies, math.log(2))
    scores = cider.scores([[5, 7, 0], [5, 9, 0]], [[[5, 7, 0]], [[5, 8, 0]]])
    assert scores.dtype == np.float64 and scores[0] > 1 and scores[1] == 0
    assert [len(c) for c in count_ngrams([1, 2, 3])] == [3, 2, 1, 0]


def test_scores_of_single_sentences():
    # Published with a test suite of another project: split at white space, one image.
    references = {0: ["this is a test", "this is also a test"]}
    corpus, per_image = score(references, {0: "this is a good test"}, tokenize=False)
    expected = {"Bleu_1": 0.799999, "Bleu_2": 0.632455, "Bleu_3": 0.5108729}
    expected |= {"Bleu_4": 9.03602e-05, "ROUGE_L": 0.9070631, "CIDEr": 0.0}
    assert {name: corpus[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert per_image[0] == pytest.approx(corpus, abs=1e-9)
    references = {0: ["Test en français.", "Le test en français."]}
    corpus, _ = score(references, {0: "Le test est en français."}, tokenize=False)
    assert corpus["Bleu_3"] == pytest.approx(5.1e-06, abs=1e-7)
    assert corpus["ROUGE_L"] == pytest.approx(0.9070631, abs=1e-6)


def subsequences(words):
    return {c for n in range(len(words) + 1) for c in itertools.combinations(words, n)}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=8), st.lists(st.sampled_from("abc"), max_size=8))
def test_lcs_is_the_longest_common_subsequence(first, second):
    longest = max(len(c) for c in subsequences(first) & subsequences(second))
    assert longest_common_subsequence(first, second) == longest


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(WORDS, st.lists(SOME_WORDS, min_size=1, max_size=3)), min_size=2, max_size=5)
)
def test_scores_stay_in_their_range(rows):
    references = {i: [" ".join(r) for r in refs] for i, (_, refs) in enumerate(rows)}
    hypotheses = {i: " ".join(words) for i, (words, _) in enumerate(rows)}
    corpus, per_image = score(references, hypotheses)
    for scores in [corpus, *per_image.values()]:
        for name, value in scores.items():
            assert 0 <= value <= (10.0001 if name.startswith("CIDEr") else 1.0001), name


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=4, max_size=9), min_size=3, max_size=5)
)
def test_repeating_the_only_reference_is_perfect(sentences):
    references = {i: [" ".join(words)] for i, words in enumerate(sentences)}
    hypotheses = {i: references[i][0] for i in references}
    corpus, _ = score(references, hypotheses, tokenize=False)
    assert corpus["Bleu_4"] == pytest.approx(1, abs=1e-6)
    assert corpus["ROUGE_L"] == pytest.approx(1)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(WORDS, st.lists(SOME_WORDS, min_size=1, max_size=4)), min_size=1, max_size=4)
)
def test_equals_the_official_package(rows):
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed")
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    truth = {i: [" ".join(r) for r in refs] for i, (_, refs) in enumerate(rows)}
    own = {i: [" ".join(words)] for i, (words, _) in enumerate(rows)}
    corpus, per_image = score(truth, {i: own[i][0] for i in own}, tokenize=False)
    bleu, bleus = Bleu(4).compute_score(truth, own, verbose=0)
    rouge, rouges = Rouge().compute_score(truth, own)
    cider, ciders = Cider().compute_score(truth, own)
    assert [corpus[f"Bleu_{k}"] for k in (1, 2, 3, 4)] == pytest.approx(bleu, abs=1e-12)
    assert [corpus["ROUGE_L"], corpus["CIDEr"]] == pytest.approx([rouge, cider], abs=1e-9)
    for i in own:
        assert per_image[i]["Bleu_4"] == pytest.approx(bleus[3][i], abs=1e-12)
        assert per_image[i]["ROUGE_L"] == pytest.approx(rouges[i], abs=1e-12)
        assert per_image[i]["CIDEr"] == pytest.approx(ciders[i], abs=1e-9)


def test_an_empty_caption_scores_zero():
    references = {"a": ["two dogs run"], "b": ["a red ball"]}
    corpus, per_image = score(references, {"a": "", "b": "a red ball"})
    assert set(per_image["a"].values()) == {0.0} or max(per_image["a"].values()) < 1e-6
    assert per_image["b"]["ROUGE_L"] == pytest.approx(1)
    assert corpus["ROUGE_L"] == pytest.approx(0.5)


def test_images_without_a_caption_are_not_scored():
    references = {"a": ["two dogs"], "b": ["a ball"], "c": ["a cat"]}
    _, per_image = score(references, {"c": "a cat", "a": "dogs"})
    assert list(per_image) == ["a", "c"]


@pytest.mark.parametrize(
    ("references", "hypotheses", "message"),
    [
        ({}, {}, "no captions to score"),
        ({1: ["a"]}, {2: "a"}, "image 2 has a caption to score but no reference"),
        ({1: []}, {1: "a"}, "image 1 has a caption to score but no reference"),
        ({1: "a"}, {1: "a"}, "references of image 1 are one string"),
        ({1: ["a"]}, {1: None}, "caption of image 1 is a NoneType"),
    ],
)
def test_mistakes_are_named(references, hypotheses, message):
    with pytest.raises(UserError, match=message):
        score(references, hypotheses)


def test_unknown_metric_names_the_nearest():
    with pytest.raises(UserError, match=r"unknown caption metric 'CIDER'.*did you mean 'CIDEr'"):
        score({1: ["a"]}, {1: "a"}, metrics=["CIDER"])


def test_missing_java_gives_a_reason(monkeypatch):
    monkeypatch.setenv("PATH", "")
    corpus, _, reasons = score_with_reasons({1: ["a dog"]}, {1: "a dog"}, ALL_METRICS)
    assert set(reasons) == {"METEOR", "SPICE"} and "METEOR" not in corpus
    assert all(reason for reason in reasons.values())
    monkeypatch.setattr(java_metrics.importlib.util, "find_spec", lambda name: None)
    assert "pip install" in java_metrics.why_unavailable("METEOR")


def test_a_failing_java_program_costs_one_number(monkeypatch):
    from xmodaler.evaluation import caption_metrics

    monkeypatch.setattr(caption_metrics, "why_unavailable", lambda name: None)
    monkeypatch.setitem(java_metrics.JAVA_METRICS, "METEOR", ("no_such_module", "Meteor", ()))
    corpus, _, reasons = score_with_reasons({1: ["a"]}, {1: "a"}, ["METEOR", "ROUGE_L"])
    assert set(corpus) == {"ROUGE_L"} and "no_such_module" in reasons["METEOR"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "references"),
    [
        ("flickr8k_test_vit8k", "metrics_reference/flickr8k_test_vit8k/references.json"),
        ("msvd_s2vt_sample", "metrics_reference/msvd_s2vt_sample/references.json"),
        ("coco_val2017_fakecap", "coco_val2017_text/captions_val2017.json"),
    ],
)
def test_reference_scores_come_out(name, references):
    folder = DATA / "metrics_reference" / name
    if not folder.is_dir():
        pytest.skip("the reference scores are not there (set XMODALER_DATA_DIR)")
    results = json.loads((folder / "results.json").read_text())
    hypotheses = {result["image_id"]: result["caption"] for result in results}
    corpus, per_image, reasons = score_with_reasons(references_of(DATA / references), hypotheses)
    stated = json.loads((folder / "scores.json").read_text())
    for metric, value in stated["recomputed_here_with_pycocoevalcap_1.2"].items():
        if metric not in reasons:
            assert corpus[metric] == pytest.approx(value, abs=1e-12), metric
    printed = {"Bleu-1": "Bleu_1", "Bleu-2": "Bleu_2", "Bleu-3": "Bleu_3", "Bleu-4": "Bleu_4"}
    printed |= {"Rouge": "ROUGE_L", "CIDEr": "CIDEr"}
    for theirs, ours in printed.items():
        if theirs in (stated["published"] or {}):
            assert f"{corpus[ours]:.3f}" == f"{stated['published'][theirs]:.3f}"
    if (folder / "per_image_scores.json").is_file():
        for key, scores in json.loads((folder / "per_image_scores.json").read_text()).items():
            for metric, value in scores.items():
                if metric not in reasons:
                    assert per_image[int(key)][metric] == pytest.approx(value, abs=1e-6)


def test_small_reference_scores_come_out():
    folder = DATA / "metrics_reference"
    if not folder.is_dir():
        pytest.skip("the reference scores are not there (set XMODALER_DATA_DIR)")
    cases = json.loads((folder / "nlg_eval" / "cases.json").read_text())["files"]
    hypotheses = dict(enumerate((folder / "nlg_eval" / cases["hyp"]).read_text().splitlines()))
    columns = [(folder / "nlg_eval" / f).read_text().splitlines() for f in cases["refs"]]
    references = {i: [column[i] for column in columns] for i in hypotheses}
    corpus, _ = score(references, hypotheses, tokenize=False)
    for metric, value in cases["scores"].items():
        if metric in corpus:
            assert corpus[metric] == pytest.approx(value, abs=1e-5), metric

    folder /= "clipscore_example"
    references = json.loads((folder / "refs.json").read_text())
    stated = json.loads((folder / "scores.json").read_text())
    for quality in ("good", "bad"):
        captions = json.loads((folder / f"{quality}_captions.json").read_text())
        corpus, _ = score(references, captions)
        assert [f"{corpus[f'Bleu_{k}']:.4f}" for k in (1, 2, 3, 4)] == [
            f"{stated[quality][f'BLEU-{k}']:.4f}" for k in (1, 2, 3, 4)
        ]
        assert f"{corpus['CIDEr']:.4f}" == f"{stated[quality]['CIDER']:.4f}"
        assert f"{corpus['ROUGE_L']:.4f}" == f"{stated[quality]['ROUGE']:.4f}"
