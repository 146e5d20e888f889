"""The official spelling of VQA answers and the leave-one-out score."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xmodaler.evaluation.vqa_normalize import (
    answer_scores,
    consensus_score,
    normalize_answer,
    vqa_accuracy,
)
from xmodaler.functional.func_vqa import CONTRACTIONS

DATA = Path(os.environ.get("XMODALER_DATA_DIR", Path(__file__).parents[3] / "shared" / "data"))


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("The Cat", "cat"),
        ("two dogs", "2 dogs"),
        ("none", "0"),
        ("ten", "10"),
        ("eleven", "eleven"),
        ("isnt it", "isn't it"),
        ("couldntve", "couldntve"),  # two apostrophes are forgotten, the table knows one
        ("couldn'tve", "couldn't've"),
        ("couldnt've", "couldn't've"),
        ("twas", "'twas"),
        ("somebody'd", "somebodyd"),
        ("tan/brown", "tan brown"),
        ("green, brown", "green brown"),
        ("1,000", "1000"),
        ("1,000/day", "1000day"),  # a comma inside a number: marks vanish without a space
        ("2.5 feet.", "2.5 feet"),
        ("5:30 p.m.", "5:30 pm"),
        ("dog's", "dog's"),
        ("  a\tred\nball ", "red ball"),
        ("?", ""),
    ],
)
def test_answers_take_the_official_spelling(written: str, normal: str) -> None:
    assert normalize_answer(written) == normal


def test_table_holds_every_single_forgotten_apostrophe() -> None:
    assert len(CONTRACTIONS) == 114
    assert CONTRACTIONS["y'alld've"] == "y'all'd've"
    assert "lets" not in CONTRACTIONS and "shes" not in CONTRACTIONS and "im" not in CONTRACTIONS


def test_ten_annotators_give_the_published_steps() -> None:
    assert [round(consensus_score(m, 10), 12) for m in range(11)] == [0, 0.3, 0.6, 0.9] + [1] * 7


def test_score_counts_others_after_normalisation() -> None:
    people = ["two", "2", "2.", "three", "3", "a lot", "lot", "?", "no", "no"]
    scores = answer_scores(people)
    assert scores["2"] == pytest.approx(0.9)
    assert scores["lot"] == pytest.approx(0.6)
    assert "" not in scores
    assert vqa_accuracy("Two", people) == pytest.approx(0.9)
    assert vqa_accuracy("elephant", people) == 0


def test_unanimous_people_are_compared_as_written() -> None:
    people = ["high five"] * 10
    assert vqa_accuracy(" high five\n", people) == 1
    assert vqa_accuracy("high 5", people) == 0
    assert vqa_accuracy("high 5", [*people[1:], "high-five"]) == 1


def test_answers_without_content_agree_with_each_other() -> None:
    assert vqa_accuracy("the", ["?", "-", "a", "yes", "yes"]) == pytest.approx((3 * 2 / 3 + 2) / 5)


def test_single_annotator_is_an_exact_match() -> None:
    assert answer_scores(["The Table"]) == {"table": 1.0}
    assert vqa_accuracy("garbage bin", ["garbage_bin"]) == 1


@given(st.lists(st.sampled_from(["yes", "no", "Yes.", "two", "2", "the dog", "dog"]), min_size=2))
def test_score_is_the_mean_over_leave_one_out_sets(people: list[str]) -> None:
    normal = [normalize_answer(answer) for answer in people]
    for answer, score in answer_scores(people).items():
        sets = [
            min(1, sum(other == answer for j, other in enumerate(normal) if j != i) / 3)
            for i in range(len(normal))
        ]
        assert score == pytest.approx(sum(sets) / len(sets))


@pytest.mark.skipif(not (DATA / "vqav2_text").is_dir(), reason="no VQA v2 texts")
def test_answers_of_people_to_vqa_v2_agree_as_far_as_they_do() -> None:
    content = json.loads((DATA / "vqav2_text" / "annotations_val.json").read_text())
    people = {e["question_id"]: [a["answer"] for a in e["answers"]] for e in content["annotations"]}
    assert all(len(answers) == 10 for answers in people.values())
    best = [max(answer_scores(answers).values()) for answers in people.values()]
    assert sum(best) / len(best) == pytest.approx(0.9682)
    common = [
        vqa_accuracy(entry["multiple_choice_answer"], people[entry["question_id"]])
        for entry in content["annotations"]
    ]
    assert 0.96 < sum(common) / len(common) <= sum(best) / len(best)
