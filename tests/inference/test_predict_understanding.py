"""The command line of questions, choices and searches."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xmodaler.cli import run_cli
from xmodaler.inference import load

ROOT = Path(__file__).resolve().parents[2]


def predict(run, *arguments):
    path = ROOT / "tools" / "predict.py"
    spec = importlib.util.spec_from_file_location("tool_predict", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return run_cli(module.main, ["--weights", str(run), "--device", "cpu", *map(str, arguments)])


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(3):
        pixels = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def lines(capsys):
    return [line.split("\t") for line in capsys.readouterr().out.splitlines()]


def test_questions(understanding_run, pictures, capsys, tmp_path):
    run = understanding_run("vqa", pixels=True)
    assert predict(run, pictures, "--question", "what is red?", "--top-k", 2) == 0
    rows = lines(capsys)
    assert [row[0] for row in rows[::2]] == [str(pictures / f"{n}.png") for n in range(3)]
    answer = load(run, device="cpu").answer(pictures / "0.png", "what is red?", top_k=2)
    assert rows[0][1:] == ["what is red?", answer.text, f"{answer.probability:.4f}"]
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    file = tmp_path / "answers.jsonl"
    assert predict(run, bad, pictures / "1.png", "--question", "who?", "--jsonl", file) == 1
    assert str(bad) in capsys.readouterr().err
    (record,) = [json.loads(line) for line in file.read_text().splitlines()]
    assert record["question"] == "who?"
    assert len(record["answers"]) == 5


def test_several_questions_about_one_picture(understanding_run, pictures, capsys):
    run, picture = understanding_run("vqa", pixels=True), pictures / "0.png"
    asked = ["--question", "who?", "--question", "why?", "--top-k", 1]
    assert predict(run, picture, *asked) == 0
    assert [row[1] for row in lines(capsys)] == ["who?", "why?"]


def test_choices_with_objects_and_reasons(understanding_run, pictures, capsys):
    run, picture = understanding_run("vcr", pixels=True), pictures / "0.png"
    asked = ["--question", "why is [0] red?", "--objects", "person", "ball"]
    assert predict(run, picture, *asked, "--choices", "[1] is blue", "[0,1] smile") == 0
    ((_, question, answer, share),) = lines(capsys)
    assert question == "why is Casey red?"
    assert answer in ("ball is blue", "Casey and ball smile")
    assert 0.5 <= float(share) <= 1
    reasons = ["--choices", "because", "of grass", "--given", "[1] is blue"]
    assert predict(run, picture, *asked, *reasons, "--jsonl", "-") == 0
    assert json.loads(capsys.readouterr().out)["given"] == "ball is blue"


@pytest.mark.parametrize("family", ["tden", "uniter"])
def test_searches(understanding_run, pictures, capsys, family, tmp_path):
    run = understanding_run("retrieval", family, pixels=True)
    (tmp_path / "texts.txt").write_text("a red ball\n\nthe cube\n")
    assert predict(run, pictures, "--texts", tmp_path / "texts.txt", "--top-k", 2) == 0
    rows = lines(capsys)
    assert [row[:2] for row in rows] == [
        [text, rank] for text in ("a red ball", "the cube") for rank in ("1", "2")
    ]
    assert predict(run, pictures, "--texts", "a red ball", "the cube", "--by", "picture") == 0
    rows = lines(capsys)
    assert len(rows) == 6
    assert {row[2] for row in rows} == {"a red ball", "the cube"}


def test_an_index_is_kept_and_extended(understanding_run, pictures, capsys, tmp_path):
    run, index = understanding_run("retrieval", "tden", pixels=True), tmp_path / "index"
    search = ["--texts", "a red ball", "--index", index]
    assert predict(run, pictures / "0.png", pictures / "1.png", *search) == 0
    assert len(lines(capsys)) == 2
    assert predict(run, pictures, *search) == 0
    whole = lines(capsys)
    assert len(whole) == 3
    assert predict(run, *search) == 0
    assert lines(capsys) == whole


@pytest.mark.parametrize(
    ("task", "arguments", "words"),
    [
        ("vqa", ["PICTURES"], "it answers questions about pictures: .answer(picture, question)"),
        ("vqa", ["PICTURES", "--texts", "a"], "it answers questions about pictures"),
        ("vqa", ["PICTURES", "--question", ""], "question 0 is empty"),
        ("vqa", ["--question", "who?"], "no picture is given"),
        ("vqa", ["PICTURES", "--question", "a", "--texts", "b"], "give one of them"),
        ("vqa", ["PICTURES", "--choices", "a", "b"], "give --question too"),
        ("vqa", ["PICTURES", "--question", "a", "--given", "b"], "give --choices too"),
        ("vqa", ["PICTURES", "--question", "a", "--beam-size", "2"], "an option to caption"),
        ("vcr", ["PICTURES", "--question", "a", "--choices", "b"], "at least two are due"),
        ("retrieval", ["PICTURES", "--index", "x"], "give --texts to search them with"),
        ("retrieval", ["PICTURES", "--index", "x", "--texts", "a"], "needs a model with a vector"),
        ("retrieval", ["PICTURES", "--texts", "gone.txt"], "the list of texts 'gone.txt'"),
    ],
)
def test_what_cannot_be_done_is_said(understanding_run, pictures, capsys, task, arguments, words):
    run = understanding_run(task, pixels=True)
    arguments = [str(pictures) if part == "PICTURES" else part for part in arguments]
    assert predict(run, *arguments) == 2
    assert words in capsys.readouterr().err
