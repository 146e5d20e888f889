"""Questions about pictures: answers with probabilities, choices, and what cannot be asked."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from xmodaler.config import kfg
from xmodaler.inference import Answerer, Chooser, load
from xmodaler.utils.errors import UserError

RANDOM = np.random.default_rng(3)


def regions(count, seed):
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 40, (count, 2))
    return {
        "features": random.normal(size=(count, 6)).astype(np.float32),
        "boxes": np.concatenate([corners, corners + 10], axis=1).astype(np.float32),
        "image_w": np.array([64]),
        "image_h": np.array([64]),
    }


@pytest.fixture(scope="module")
def feature_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("regions")
    for number in range(5):
        np.savez(folder / f"{number}.npz", **regions(3 + number % 3, number))
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        pixels = RANDOM.integers(0, 256, (20 + number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(params=["uniter", "tden", "vilbert"], scope="module")
def answerer(request, understanding_run):
    return load(understanding_run("vqa", request.param), device="cpu")


def test_answers_are_what_the_model_says(answerer, feature_files, pieces):
    assert isinstance(answerer, Answerer)
    answer = answerer.answer(feature_files / "1.npz", "What is the ball?", top_k=5)
    assert answer.id == str(feature_files / "1.npz")
    assert sum(probability for _, probability in answer) == pytest.approx(1, abs=1e-5)
    values = [probability for _, probability in answer]
    assert values == sorted(values, reverse=True)
    assert {text for text, _ in answer} == set(answerer.vocabulary)
    assert (answer.text, answer.probability) == answer[0]
    # The same by hand.
    sample = next(answerer.read(feature_files / "1.npz"))
    pieces = [2, *(pieces.index(word) for word in ["what", "is", "the", "ball", "?"]), 3]
    sample |= {kfg.U_TOKENS_IDS: torch.tensor(pieces), kfg.U_TOKENS_TYPE: torch.zeros(7).long()}
    with torch.no_grad():
        outputs = answerer.model(answerer.model.preprocess_batch([sample]))
    assert answerer.vocabulary[int(outputs[kfg.OUTPUT])] == answer.text


def test_one_question_about_many_pictures_many_about_one_and_pairs(answerer, feature_files):
    paths = [str(feature_files / f"{number}.npz") for number in range(5)]
    questions = ["what is red?", "who is the ball?", "how many cubes?", "why?", "what lies on?"]
    whole = answerer.answer(feature_files, questions[0])
    assert [answer.id for answer in whole] == paths
    several = answerer.answer(paths[0], questions, batch_size=2)
    assert [answer.question for answer in several] == questions
    paired = answerer.answer(paths, questions, batch_size=3)
    for path, question, answer in zip(paths, questions, paired, strict=True):
        alone = answerer.answer(path, question)
        assert (answer.id, answer.question) == (path, question)
        assert dict(answer) == pytest.approx(dict(alone), abs=1e-5)
    assert dict(several[0]) == pytest.approx(dict(whole[0]), abs=1e-5)
    assert dict(several[3]) == pytest.approx(dict(answerer.answer(paths[0], "why?")), abs=1e-5)
    assert len(answerer.answer(paths[0], "why?", top_k=2)) == 2


def test_raw_pictures(understanding_run, pictures):
    answerer = load(understanding_run("vqa", pixels=True), device="cpu")
    answers = answerer.answer(pictures, "what is blue?")
    assert len(answers) == 4
    picture = Image.open(pictures / "2.png")
    assert dict(answerer.answer(picture, "what is blue?")) == pytest.approx(dict(answers[2]))
    record = json.loads(json.dumps(answers[0].as_dict()))
    assert record["question"] == "what is blue?"
    assert record["answers"][0] == {"answer": answers[0].text, "probability": answers[0][0][1]}


def test_a_bad_picture_among_many_can_be_left_out(understanding_run, pictures, tmp_path):
    answerer = load(understanding_run("vqa", pixels=True), device="cpu")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    sources = [str(pictures / "0.png"), str(tmp_path / "bad.png"), str(pictures / "1.png")]
    bad = []
    answers = answerer.answer(
        sources, ["who?", "why?", "what?"], on_error=lambda n, e: bad.append(n)
    )
    assert [answer.question for answer in answers] == ["who?", "what?"]
    assert bad == [sources[1]]
    with pytest.raises(UserError, match=r"bad\.png"):
        answerer.answer(sources, "who?")


@pytest.mark.parametrize(
    ("picture", "question", "options", "words"),
    [
        ("0.npz", "", {}, "the question is empty"),
        ("0.npz", "  ", {}, "the question is empty"),
        ("0.npz", ["what?", ""], {}, "question 1 is empty"),
        ("0.npz", [], {}, "there is no question"),
        ("0.npz", 7, {}, "the question is a int; a text is needed"),
        ("0.npz", "what?", {"top_k": 0}, "top_k is 0"),
        ("gone.npz", "what?", {}, "does not exist"),
        ("0.npz", "what?", {"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_what_cannot_be_asked_is_named(
    understanding_run, feature_files, picture, question, options, words
):
    answerer = load(understanding_run("vqa"), device="cpu")
    with pytest.raises(UserError, match=words):
        answerer.answer(feature_files / picture, question, **options)


def test_pictures_and_questions_that_do_not_pair_up(understanding_run, feature_files):
    answerer = load(understanding_run("vqa"), device="cpu")
    with pytest.raises(UserError, match="5 pictures and 2 questions do not pair up"):
        answerer.answer(feature_files, ["what?", "who?"])


@pytest.mark.parametrize(
    ("task", "family", "words"),
    [
        ("vqa", "uniter", r"it answers questions about pictures: .answer\(picture, question\)"),
        ("vcr", "uniter", r"it chooses among answers: .choose\(picture, question, answers\)"),
        ("retrieval", "uniter", r"it ranks pictures and texts: .retrieve\(text, pictures\)"),
        ("retrieval", "tden", r"it ranks pictures and texts: .retrieve\(text, pictures\)"),
    ],
)
def test_another_task_says_what_the_model_can_do(understanding_run, task, family, words):
    loaded = load(understanding_run(task, family), device="cpu")
    asked = {
        "caption": ("x.npz",),
        "answer": ("x.npz", "what?"),
        "choose": ("x.npz", "what?", ["a", "b"]),
        "retrieve": ("what", ["x.npz"]),
    }
    own = {"vqa": "answer", "vcr": "choose", "retrieval": "retrieve"}[task]
    for method, arguments in asked.items():
        if method != own:
            with pytest.raises(UserError, match=words):
                getattr(loaded, method)(*arguments)


def test_a_captioner_says_so_too(feature_run):
    with pytest.raises(UserError, match=r"it describes pictures: .caption\(pictures\)"):
        load(feature_run, device="cpu").answer("x.npz", "what?")


def test_an_answer_vocabulary_of_another_model_is_refused(understanding_run, tmp_path):
    run = shutil.copytree(understanding_run("vqa"), tmp_path / "run")
    (run / "answers.json").write_text('["red", "blue"]')
    with pytest.raises(UserError, match=r"has 2 answers but the model .* 5 labels"):
        load(run, device="cpu")
    (run / "answers.json").unlink()
    with pytest.raises(UserError, match="trainval_label2ans"):
        load(run, device="cpu")


ANSWERS = ["the red ball is on the cube.", "the ball is blue.", "because of the grass."]


@pytest.fixture(params=["uniter", "tden"], scope="module")
def chooser(request, understanding_run):
    return load(understanding_run("vcr", request.param), device="cpu")


def test_choosing_among_answers_and_rationales(chooser, feature_files):
    assert isinstance(chooser, Chooser)
    path = feature_files / "0.npz"
    choice = chooser.choose(path, "why is the ball red?", ANSWERS)
    assert sum(choice.probabilities) == pytest.approx(1, abs=1e-5)
    assert choice.text == ANSWERS[choice.index] == str(choice)
    assert choice.probability == max(choice.probabilities)
    turned = chooser.choose(path, "why is the ball red?", ANSWERS[::-1])
    assert turned.text == choice.text
    assert turned.probabilities == pytest.approx(choice.probabilities[::-1], abs=1e-5)
    reasons = chooser.choose(path, "why is the ball red?", ANSWERS, given=choice.text)
    assert reasons.given == choice.text
    assert reasons.probabilities != pytest.approx(choice.probabilities, abs=1e-4)
    record = json.loads(json.dumps(choice.as_dict()))
    assert record["choices"][choice.index]["answer"] == record["answer"] == choice.text


def test_choosing_for_many(chooser, feature_files):
    questions = ["why?", "who is the ball?", "what is on grass?"]
    several = chooser.choose(feature_files / "1.npz", questions, ANSWERS, batch_size=2)
    for question, choice in zip(questions, several, strict=True):
        alone = chooser.choose(feature_files / "1.npz", question, ANSWERS)
        assert choice.question == question
        assert choice.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
    many = chooser.choose(feature_files, "why?", ANSWERS, batch_size=2)
    assert len(many) == 5
    assert many[1].probabilities == pytest.approx(several[0].probabilities, abs=1e-5)


def test_objects_have_names(chooser, feature_files):
    path = feature_files / "2.npz"
    objects = ["person", "ball"]
    question, answers = ["why", "is", [0], "?"], [["because", "of", [1]], [[0, 1], "smile"]]
    choice = chooser.choose(path, question, answers, objects=objects)
    assert choice.question == "why is Casey ?"
    assert choice.choices == ("because of ball", "Casey and ball smile")
    plain = chooser.choose(path, choice.question, list(choice.choices))
    assert choice.probabilities == pytest.approx(plain.probabilities)


@pytest.mark.parametrize(
    ("question", "answers", "options", "words"),
    [
        ("", ANSWERS, {}, "question is empty"),
        ("why?", [], {}, "there is 0 answer to choose from"),
        ("why?", ["one"], {}, "at least two are due"),
        ("why?", "yes", {}, "answers is a str; a list of texts is needed"),
        ("why?", ["yes", ""], {}, "answer 1 is empty"),
        (["why", [4]], ANSWERS, {"objects": ["ball"]}, "question refers to object 4"),
        ([], ANSWERS, {}, "there is no question"),
    ],
)
def test_choices_that_cannot_be_made_are_named(
    understanding_run, feature_files, question, answers, options, words
):
    chooser = load(understanding_run("vcr"), device="cpu")
    with pytest.raises(UserError, match=words):
        chooser.choose(feature_files / "0.npz", question, answers, **options)
