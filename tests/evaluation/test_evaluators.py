"""COCOEvaler, COCOPrinter, the registry and the helpers around them."""

import json
import os
import subprocess
import sys

import pytest

from xmodaler.config import configurable, get_cfg
from xmodaler.evaluation import (
    EVALUATION_REGISTRY,
    COCOEvaler,
    COCOPrinter,
    build_evaluation,
)
from xmodaler.evaluation.testing import flatten_results_dict
from xmodaler.utils.errors import UserError

COCO = {
    "images": [{"id": 1, "file_name": "a.png"}, {"id": 22, "file_name": "b.png"}, {"id": 3}],
    "annotations": [
        {"id": 0, "image_id": 1, "caption": "A red ball lies on the grass."},
        {"id": 1, "image_id": 1, "caption": "There's a ball on grass."},
        {"id": 2, "image_id": 22, "caption": "Two blue cubes, side by side"},
    ],
}
RESULTS = [
    {"image_id": 22, "caption": "two blue cubes"},
    {"image_id": 1, "caption": "a red ball on the grass"},
]


@pytest.fixture
def cfg():
    return get_cfg()


@pytest.fixture
def annfile(tmp_path):
    path = tmp_path / "captions.json"
    path.write_text(json.dumps(COCO))
    return str(path)


def quick(evaler):
    evaler.metrics = ("BLEU", "ROUGE_L", "CIDEr", "CIDEr-D")
    return evaler


def test_scores_prints_and_writes(cfg, annfile, tmp_path, capsys):
    evaler = quick(COCOEvaler(cfg, annfile, str(tmp_path / "out")))
    metrics = evaler.eval(RESULTS, 3)
    names = ["Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr", "CIDEr-D"]
    assert list(metrics) == names
    assert all(type(value) is float for value in metrics.values())
    assert f"Bleu_1: {metrics['Bleu_1']:.3f}\n" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "results" / "3.json").read_text()) == RESULTS
    assert set(evaler.per_image) == {"1", "22"}
    assert metrics["CIDEr"] == metrics["CIDEr-D"]


def test_epoch_and_output_dir_are_optional(cfg, annfile, tmp_path):
    evaler = quick(COCOEvaler(cfg, annfile))
    assert evaler.eval(RESULTS)["ROUGE_L"] > 0
    assert sorted(os.listdir(tmp_path)) == ["captions.json"]
    evaler = quick(COCOEvaler(cfg, annfile, str(tmp_path)))
    evaler.eval(RESULTS)
    evaler.result_prefix = "val_"
    evaler.eval(RESULTS, 2)
    assert sorted(os.listdir(tmp_path / "results")) == ["-1.json", "val_2.json"]


def test_java_metrics_are_absent_with_one_line(cfg, annfile, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    metrics = COCOEvaler(cfg, annfile).eval(RESULTS)
    assert "METEOR" not in metrics and "SPICE" not in metrics
    printed = capsys.readouterr().out
    assert printed.count("METEOR: not computed") == printed.count("SPICE: not computed") == 1


def test_json_lines_and_string_ids(cfg, tmp_path):
    path = tmp_path / "captions.jsonl"
    lines = [
        {"id": "COCO_0007", "image": "a.png", "captions": ["a red ball"]},
        {"id": "8", "image": "b.png", "captions": ["two cubes", "cubes"]},
    ]
    path.write_text("\n".join(json.dumps(line) for line in lines))
    evaler = quick(COCOEvaler(cfg, str(path)))
    results = [
        {"image_id": "COCO_0007", "caption": "a red ball"},
        {"image_id": 8, "caption": "two cubes"},
    ]
    assert evaler.eval(results)["ROUGE_L"] == pytest.approx(1)


def test_keys_of_results_come_from_the_config(cfg, annfile):
    cfg.INFERENCE.ID_KEY, cfg.INFERENCE.VALUE = "video_id", "text"
    results = [{"video_id": r["image_id"], "text": r["caption"]} for r in RESULTS]
    assert quick(COCOEvaler(cfg, annfile)).eval(results)["Bleu_1"] > 0
    with pytest.raises(UserError, match=r"INFERENCE.ID_KEY 'video_id'"):
        COCOEvaler(cfg, annfile).eval(RESULTS)


def test_mistakes_are_named(cfg, annfile, tmp_path):
    with pytest.raises(UserError, match=r"nowhere.json' do not exist; INFERENCE.VAL_ANNFILE"):
        COCOEvaler(cfg, str(tmp_path / "nowhere.json"))
    evaler = COCOEvaler(cfg, annfile)
    with pytest.raises(UserError, match="image 22 has more than one result"):
        evaler.eval([*RESULTS, {"image_id": "22", "caption": "again"}])
    with pytest.raises(UserError, match=r"1 of 3 results belong to images.*the first of them 99"):
        evaler.eval([*RESULTS, {"image_id": 99, "caption": "a"}])
    with pytest.raises(UserError, match="no captions to score"):
        evaler.eval([])
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(UserError, match="Cannot write"):
        COCOEvaler(cfg, annfile, str(blocked)).eval(RESULTS)


def test_an_image_without_references_is_left_out(cfg, annfile, caplog):
    evaler = quick(COCOEvaler(cfg, annfile))
    evaler.eval([*RESULTS, {"image_id": 3, "caption": "something"}])
    assert set(evaler.per_image) == {"1", "22"}


def test_results_survive_a_bad_id(cfg, annfile, tmp_path):
    with pytest.raises(UserError):
        COCOEvaler(cfg, annfile, str(tmp_path)).eval([{"image_id": 99, "caption": "a"}], 1)
    assert (tmp_path / "results" / "1.json").is_file()


def test_printer_appends_lines(cfg, tmp_path):
    printer = COCOPrinter(cfg, "", str(tmp_path / "deep" / "out"))
    assert printer.eval(RESULTS, 1) == {}
    assert printer.eval([{"image_id": "x", "caption": "tab\there\nand break"}]) == {}
    lines = (tmp_path / "deep" / "out" / "results.txt").read_text().splitlines()
    assert lines == ["22\ttwo blue cubes", "1\ta red ball on the grass", "x\ttab here and break"]


def test_build_evaluation(cfg, annfile, tmp_path):
    assert build_evaluation(cfg, annfile, None) is None
    cfg.INFERENCE.NAME = "COCOEvaler"
    assert isinstance(build_evaluation(cfg, annfile, str(tmp_path)), COCOEvaler)
    cfg.INFERENCE.NAME = "COCOEvaller"
    with pytest.raises(KeyError, match="COCOEvaler"):
        build_evaluation(cfg, annfile, None)


def test_both_shapes_of_a_users_evaluator(cfg, monkeypatch):
    monkeypatch.setattr(EVALUATION_REGISTRY, "_objects", dict(EVALUATION_REGISTRY._objects))

    @EVALUATION_REGISTRY.register()
    class TwoArguments:
        def __init__(self, cfg, annfile):
            self.annfile = annfile

    @EVALUATION_REGISTRY.register()
    class Configured:
        @configurable
        def __init__(self, *, key):
            self.key = key

        @classmethod
        def from_config(cls, cfg, annfile):
            return {"key": cfg.INFERENCE.ID_KEY + annfile}

    cfg.INFERENCE.NAME = "TwoArguments"
    assert build_evaluation(cfg, "x.json", "out").annfile == "x.json"
    cfg.INFERENCE.NAME = "Configured"
    assert build_evaluation(cfg, "x.json", "out").key == "image_idx.json"


def test_flatten_results_dict():
    nested = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert flatten_results_dict(nested) == {"a/b": 1, "a/c/d": 2, "e": 3}


def test_importing_evaluators_is_light():
    code = "import sys, xmodaler.evaluation; print([m for m in sys.modules if m in {heavy}])"
    heavy = {"pycocoevalcap", "pycocotools", "matplotlib", "jinja2", "transformers", "timm"}
    done = subprocess.run(
        [sys.executable, "-c", code.replace("{heavy}", repr(heavy))],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"
