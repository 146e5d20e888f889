"""Scores of any system: formats, equality with the plain scores, mistakes, reports, the tool."""

import importlib.util
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xmodaler.cli import run_cli
from xmodaler.evaluation import compare_captions, score_captions
from xmodaler.evaluation.caption_metrics import score
from xmodaler.evaluation.caption_report import markdown_report, write_caption_report
from xmodaler.evaluation.caption_systems import name_systems
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("XMODALER_DATA_DIR", ROOT.parent / "shared" / "data"))
REFERENCES = {
    1: ["A red circle above a blue square.", "a circle over a square"],
    2: ["Two dogs run in the snow.", "dogs are running through snow"],
    3: ["a man rides a horse on the beach", "A person on a horse."],
    4: ["the cat sleeps", "A grey cat is sleeping on a sofa."],
}
CAPTIONS = {
    1: "a red circle above a square",
    2: "two dogs are running in the snow",
    3: "a man on a horse",
    4: "a cat sleeping on a sofa",
}
WORSE = {1: "a circle", 2: "a dog in the snow", 3: "a man on a bike", 4: "a dog"}


def coco(references):
    images = [{"id": key, "file_name": f"{key}.jpg"} for key in references]
    pairs = [(key, caption) for key, own in references.items() for caption in own]
    annotations = [
        {"id": number, "image_id": key, "caption": caption}
        for number, (key, caption) in enumerate(pairs)
    ]
    return {"images": images, "annotations": annotations}


def as_lines(records):
    return "".join(json.dumps(record) + "\n" for record in records)


def test_scores_equal_the_plain_ones():
    scores = score_captions(REFERENCES, CAPTIONS, samples=20)
    corpus, per_image = score(REFERENCES, CAPTIONS, ["BLEU", "ROUGE_L", "CIDEr"])
    assert scores.corpus == corpus
    assert scores.per_image == {str(key): values for key, values in per_image.items()}
    assert set(scores.intervals) == set(corpus)
    plain, _ = score(REFERENCES, CAPTIONS, ["BLEU"], tokenize=False)
    assert plain != {name: corpus[name] for name in plain}
    found = score_captions(REFERENCES, CAPTIONS, ["BLEU"], tokenize=False, samples=0)
    assert found.corpus == plain and found.intervals == {}


@pytest.mark.parametrize("kind", ["coco", "mapping", "json lines", "records", "one a line"])
def test_formats_of_references(tmp_path, kind):
    path = tmp_path / ("references.jsonl" if kind == "json lines" else "references.json")
    content = {
        "coco": json.dumps(coco(REFERENCES)),
        "mapping": json.dumps(REFERENCES),
        "json lines": as_lines({"id": key, "captions": own} for key, own in REFERENCES.items()),
        "records": json.dumps(coco(REFERENCES)["annotations"]),
        # JSON lines are recognised whatever they are called.
        "one a line": as_lines(coco(REFERENCES)["annotations"]),
    }
    path.write_text(content[kind])
    expected = score_captions(REFERENCES, CAPTIONS, samples=0).corpus
    assert score_captions(path, CAPTIONS, samples=0).corpus == expected


@pytest.mark.parametrize("kind", ["results", "mapping", "lists", "json lines", "file names"])
def test_formats_of_hypotheses(tmp_path, kind):
    path = tmp_path / ("captions.jsonl" if kind in ("json lines", "file names") else "c.json")
    content = {
        "results": json.dumps([{"image_id": k, "caption": c} for k, c in CAPTIONS.items()]),
        "mapping": json.dumps({f"{key:012d}": caption for key, caption in CAPTIONS.items()}),
        "lists": json.dumps({key: [caption] for key, caption in CAPTIONS.items()}),
        "json lines": as_lines({"id": str(k), "caption": c} for k, c in CAPTIONS.items()),
        "file names": as_lines(
            {"image": f"{key}.jpg", "caption": caption} for key, caption in CAPTIONS.items()
        ),
    }
    path.write_text(content[kind])
    expected = score_captions(REFERENCES, CAPTIONS, samples=0)
    found = score_captions(coco(REFERENCES), path, samples=0)
    assert found.corpus == expected.corpus and found.per_image == expected.per_image


@pytest.mark.parametrize(
    ("references", "captions", "message"),
    [
        (REFERENCES, {}, "holds no captions to score"),
        (REFERENCES, {9: "a"}, r"1 of the 1 images of mine .* no reference .* of them 9"),
        ({1: []}, {1: "a"}, "have no reference caption"),
        (REFERENCES, {1: []}, "image 1 has an empty list of captions"),
        (REFERENCES, {1: None}, "caption of image 1 is a NoneType"),
        (REFERENCES, {1: ["a", 2]}, "a caption of image 1 is a int, not a string"),
        (REFERENCES, {"1": "a", "01": "b"}, "image 1 has more than one record"),
        (
            REFERENCES,
            [{"image_id": 1, "caption": "a"}, {"image_id": 1, "caption": "b"}],
            "image 1 has more than one record",
        ),
        (REFERENCES, [{"image_id": 1}], r"mine record 1 lacks a 'caption'.*\['image_id'\]"),
        (REFERENCES, [{"caption": "a"}], r"mine record 1 lacks an id"),
        (REFERENCES, [{"image_id": 1.5, "caption": "a"}], "id 1.5 is neither"),
        (REFERENCES, ["a", "b"], "mine record 1 is a str; right is"),
        (REFERENCES, 7, "mine is a int; right is a list"),
        (REFERENCES, {1: {"caption": "a"}}, "value of 1 is an object"),
    ],
)
def test_mistakes_in_captions(references, captions, message):
    with pytest.raises(UserError, match=message):
        compare_captions(references, {"mine": captions})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3) | st.sampled_from(["a", "1", "a b", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["id", "image_id", "caption", "captions", "annotations", "1", "2"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(ANYTHING, ANYTHING)
def test_whatever_is_given_is_scored_or_refused_in_one_sentence(references, captions):
    for pair in ((references, CAPTIONS), (REFERENCES, captions), (references, captions)):
        try:
            scores = score_captions(*pair, samples=2)
        except UserError as error:
            assert "\n" not in str(error)
        else:
            assert set(scores.intervals) == set(scores.corpus)


def test_mistakes_in_files(tmp_path):
    path = tmp_path / "captions.json"
    with pytest.raises(UserError, match="does not exist"):
        score_captions(REFERENCES, path)
    with pytest.raises(UserError, match="do not exist"):
        score_captions(REFERENCES, tmp_path / "captions.jsonl")
    path.write_text('{"1": "a",')
    with pytest.raises(UserError, match=r"line 1 column .* not valid JSON"):
        score_captions(REFERENCES, path)
    lines = tmp_path / "captions.jsonl"
    lines.write_text('{"id": 1, "caption": "a"}\n{"id":\n')
    with pytest.raises(UserError, match="every line must be an object"):
        score_captions(REFERENCES, lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples": -1}, "resampled sets is -1"),
        ({"confidence": 95}, "confidence is 95"),
        ({"images": "some"}, "images is 'some'"),
        ({"metrics": ["Bleu"]}, "unknown caption metric 'Bleu'"),
    ],
)
def test_mistakes_in_settings(changes, message):
    with pytest.raises(UserError, match=message):
        score_captions(REFERENCES, CAPTIONS, **changes)


def test_which_images_are_scored():
    part = {key: CAPTIONS[key] for key in (2, 4)}
    report = compare_captions(REFERENCES, {"part": part}, samples=0)
    assert list(report.references) == ["2", "4"]
    plain = score(REFERENCES, part, ["BLEU", "ROUGE_L", "CIDEr"])[0]
    assert report.systems["part"].corpus == plain
    assert any("2 of the 4 images" in note for note in report.notes)
    with pytest.raises(UserError, match=r"2 of the 4 images .* have no caption, .* 1 in part"):
        compare_captions(REFERENCES, {"part": part}, images="all")
    with pytest.raises(UserError, match=r"part lacks 2 of the images of whole, .* them 1;"):
        compare_captions(REFERENCES, {"whole": CAPTIONS, "part": part})
    with pytest.raises(UserError, match=r"whole lacks|part lacks"):
        compare_captions(REFERENCES, {"part": part, "whole": CAPTIONS})
    report = compare_captions(
        REFERENCES, {"whole": CAPTIONS, "part": part}, images="common", samples=0
    )
    assert report.systems["whole"].corpus == report.systems["part"].corpus
    with pytest.raises(UserError, match="no image that every system"):
        compare_captions(REFERENCES, {"a": {1: "a"}, "b": {2: "b"}}, images="common", samples=0)


def test_empty_captions_are_noted_and_score_zero():
    captions = CAPTIONS | {3: " "}
    report = compare_captions(REFERENCES, {"mine": captions}, samples=0)
    assert report.systems["mine"].per_image["3"]["ROUGE_L"] == 0
    assert report.systems["mine"].lengths["empty"] == 1
    assert "1 caption of mine is empty: image 3." in report.notes


def test_several_captions_an_image_count_for_diversity():
    captions = {key: [caption, WORSE[key]] for key, caption in CAPTIONS.items()}
    report = compare_captions(REFERENCES, {"mine": captions}, samples=0)
    scores = report.systems["mine"]
    assert scores.corpus == score_captions(REFERENCES, CAPTIONS, samples=0).corpus
    assert 0 < scores.diversity["self_cider"] <= 1
    assert any("up to 2 captions of an image" in note for note in report.notes)


@pytest.mark.parametrize("given", [["A man on a horse!"], {7: ["a man on a horse"]}])
def test_novel_captions(given):
    scores = score_captions(REFERENCES, CAPTIONS, samples=0, training_captions=given)
    assert scores.diversity["novel"] == pytest.approx(3 / 4)
    assert "novel" not in score_captions(REFERENCES, CAPTIONS, samples=0).diversity


def test_names_of_systems():
    assert name_systems(["a/x.json", "a/y.json"]) == {"x": "a/x.json", "y": "a/y.json"}
    paths = ["a/results.json", "b/results.json"]
    assert name_systems(paths) == {"a/results": paths[0], "b/results": paths[1]}
    assert name_systems(paths, ["old", "new"]) == {"old": paths[0], "new": paths[1]}
    with pytest.raises(UserError, match="1 names for 2 files"):
        name_systems(paths, ["old"])
    with pytest.raises(UserError, match="names of their own"):
        name_systems(paths, ["old", "old"])


def test_reports(tmp_path):
    report = compare_captions(REFERENCES, {"good <b>": CAPTIONS, "bad|": WORSE}, samples=50)
    for ending in ("json", "md", "html"):
        write_caption_report(tmp_path / f"report.{ending}", report, "A title")
    content = json.loads((tmp_path / "report.json").read_text())
    system = content["systems"]["good <b>"]
    assert system["corpus"] == report.systems["good <b>"].corpus
    assert system["per_image"] == report.systems["good <b>"].per_image
    assert content["comparisons"][0]["scores"]["CIDEr"]["p_bootstrap"] <= 1
    assert content["settings"]["images"] == 4
    markdown = (tmp_path / "report.md").read_text()
    assert markdown == markdown_report(report, "A title")
    value = 100 * report.systems["bad|"].corpus["ROUGE_L"]
    assert "| bad\\| |" in markdown and f" {value:.1f} [" in markdown
    for line in markdown.splitlines():
        assert not line.startswith("|") or line.endswith("|")
    html = (tmp_path / "report.html").read_text()
    assert "good &lt;b&gt;" in html and "<b>bad" not in html
    assert "the best and the worst by CIDEr" in html and "Comparison" in html
    with pytest.raises(UserError, match=r"report.txt' does not end in .json, .md, .html"):
        write_caption_report(tmp_path / "report.txt", report)


def test_pictures_are_shown(tmp_path):
    for key in REFERENCES:
        Image.new("RGB", (8, 8), (40 * key, 0, 0)).save(tmp_path / f"{key}.jpg")
    report = compare_captions(coco(REFERENCES), {"a": CAPTIONS}, samples=0, pictures=tmp_path)
    write_caption_report(tmp_path / "report.html", report)
    assert (tmp_path / "report.html").read_text().count('src="data:image') == 4
    (tmp_path / "2.jpg").unlink()
    with pytest.raises(UserError, match=r"2\.jpg"):
        write_caption_report(tmp_path / "report.html", report)


def test_the_tool(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("tool", ROOT / "tools" / "score_captions.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    files = {"refs": coco(REFERENCES), "good": CAPTIONS, "bad": WORSE}
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    paths = [str(tmp_path / f"{name}.json") for name in files]
    flags = ["--metrics", "BLEU", "CIDEr", "--samples", "30", "--training", paths[1]]
    out = str(tmp_path / "scores.json")
    assert run_cli(tool.main, [*paths, *flags, "--out", out]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"\| good \| [\d.]+ \[", printed) and "good − bad" in printed
    assert json.loads(Path(out).read_text())["systems"]["bad"]["diversity"]["novel"] == 1
    assert run_cli(tool.main, [*paths, *flags, "--out", "scores.txt"]) == 2
    assert "does not end in" in capsys.readouterr().err
    assert run_cli(tool.main, [paths[0], paths[0]]) == 2
    assert "more than one record" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flickr8k_test_vit8k", "msvd_s2vt_sample"])
def test_published_scores_of_real_systems(name):
    folder = DATA / "metrics_reference" / name
    if not folder.is_dir():
        pytest.skip("the reference scores are not there (set XMODALER_DATA_DIR)")
    scores = score_captions(folder / "references.json", folder / "results.json", samples=200)
    stated = json.loads((folder / "scores.json").read_text())
    for metric, value in stated["recomputed_here_with_pycocoevalcap_1.2"].items():
        if metric in scores.corpus:
            assert scores.corpus[metric] == pytest.approx(value, abs=1e-12), metric
            low, high = scores.intervals[metric]
            assert low < value < high
    for key, values in json.loads((folder / "per_image_scores.json").read_text()).items():
        assert scores.per_image[key]["CIDEr"] == pytest.approx(values["CIDEr"], abs=1e-6)
