"""The HTML report: complete, escaped, self-contained, robust to odd input."""

import math
import os
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xmodaler.evaluation.report import read_curves, write_report
from xmodaler.utils.errors import UserError

VOID = {"meta", "img", "br", "line", "rect", "path", "circle", "link"}


class Checker(HTMLParser):
    """Collects text and addresses, and fails on elements that do not nest."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.addresses, self.count = [], [], [], {}

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.addresses += [v for k, v in attributes if k in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag in VOID or self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def parse(path):
    html = path.read_text(encoding="utf-8")
    checker = Checker()
    checker.feed(html)
    assert not checker.open
    return html, checker, " ".join(checker.text)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.fromarray(
        np.arange(64 * 48 * 3, dtype=np.uint32).astype(np.uint8).reshape(48, 64, 3)
    ).save(path)
    return path


def test_a_full_report(tmp_path, picture):
    samples = [
        {
            "image": picture,
            "references": ["a red ball", "the ball is red"],
            "caption": "a ball",
            "scores": {"CIDEr": 1.23456},
            "words": ["a", "ball"],
            "attention": np.random.default_rng(0).random((2, 3, 4)),
        },
        {"image": Image.new("RGBA", (900, 600)), "caption": "second"},
        {"caption": "no picture"},
    ]
    write_report(
        tmp_path / "out" / "report.html",
        title="A run",
        scores=[{"": "model", "Bleu_4": 0.20186}, {"": "oracle", "CIDEr": 2, "Bleu_4": None}],
        curves={"total_loss": [(0, 3.0), (10, 2.0), (20, math.nan)], "empty": []},
        samples=samples,
        notes=["Trained on a CPU.", "SPICE: not there"],
    )
    html, checker, text = parse(tmp_path / "out" / "report.html")
    for expected in ("A run", "0.202", "oracle", "total_loss", "Trained on a CPU.", "1.235"):
        assert expected in text
    assert "the ball is red" in text and "no picture" in text and "3 test pictures" in text
    # One picture each, and a veil for each of the two words.
    assert checker.count["img"] == 4 and checker.count["svg"] == 1
    assert all(address.startswith("data:image/") for address in checker.addresses)
    assert not re.search(r"https?://|<script|@import", html)
    assert "prefers-color-scheme: dark" in html and 'name="viewport"' in html


def test_text_is_escaped(tmp_path):
    nasty = '<script>alert("x")</script> & "quotes"'
    write_report(
        tmp_path / "r.html",
        title=nasty,
        scores=[{nasty: nasty}],
        curves={nasty: [(1, 1.0)]},
        samples=[{"caption": nasty, "references": [nasty], "scores": {nasty: 1}}],
        notes=nasty,
    )
    html, _, text = parse(tmp_path / "r.html")
    assert "<script>alert" not in html and text.count('alert("x")') >= 7


def test_right_to_left_emoji_and_long_captions(tmp_path):
    captions = ["كلب يجري على العشب", "a 🎉 dog", "", "word " * 10_000]
    samples = [{"caption": caption} for caption in captions]
    write_report(tmp_path / "r.html", title="t", samples=samples)
    _, _, text = parse(tmp_path / "r.html")
    assert "كلب" in text and "🎉" in text and "(empty caption)" in text


def test_square_maps_are_laid_out_and_others_left_out(tmp_path, picture):
    sample = {"image": picture, "caption": "a dog"}
    for positions, veils in ((9, 2), (7, 0)):
        sample["attention"] = np.ones((2, positions))
        write_report(tmp_path / "r.html", title="t", samples=[sample])
        _, checker, _ = parse(tmp_path / "r.html")
        assert checker.count["img"] == 1 + veils
    sample["attention"] = np.full((2, 4), np.nan)
    write_report(tmp_path / "r.html", title="t", samples=[sample])
    with pytest.raises(UserError, match=r"attention maps have shape \(3,\)"):
        write_report(tmp_path / "r.html", title="t", samples=[sample | {"attention": np.ones(3)}])


def test_a_broken_picture_leaves_the_old_report(tmp_path):
    report = tmp_path / "r.html"
    write_report(report, title="old")
    (tmp_path / "broken.png").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match=r"broken\.png"):
        write_report(report, title="new", samples=[{"image": tmp_path / "broken.png"}])
    assert "old" in report.read_text()
    assert sorted(os.listdir(tmp_path)) == ["broken.png", "r.html"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(), max_size=400))
def test_any_curve_can_be_drawn(values):
    from xmodaler.evaluation.report import _draw_curve

    curve = _draw_curve("x", list(enumerate(values)))
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        assert curve is None
        return
    points = re.findall(r"[ML]([-\d.]+) ([-\d.]+)", curve["path"])
    assert 1 <= len(points) <= 240
    assert all(40 <= float(x) <= 314 and 10 <= float(y) <= 126 for x, y in points)
    assert len(curve["probes"]) <= 122


def test_read_curves(tmp_path):
    path = tmp_path / "metrics.json"
    lines = [
        '{"iteration": 10, "total_loss": 3.0, "lr": 0.1, "name": "text"}',
        '{"iteration": 20, "total_loss": null}',
        '{"iteration": 30, "total_loss": NaN, "val/CIDEr": 0.5}',
        '{"iteration": 20, "total_loss": 2.0}',
        '{"iteration": 10, "total_loss": 2.9}',
        "[]",
        '{"iteration": 40, "total_lo',
    ]
    path.write_text("\n".join(lines))
    curves = read_curves(path)
    assert curves == {
        "lr": [(10, 0.1)],
        "total_loss": [(10, 2.9), (20, 2.0)],
        "val/CIDEr": [(30, 0.5)],
    }
    assert read_curves(tmp_path / "missing.json") == {}
