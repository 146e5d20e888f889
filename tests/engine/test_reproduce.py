"""Training a suite of configs and comparing them in one table."""

import argparse
import json
from pathlib import Path

import pytest

from xmodaler.datasets.synthetic import make_shapes
from xmodaler.engine import reproduce
from xmodaler.engine.reproduce import command
from xmodaler.engine.reproduce.single import finished_result, read_config
from xmodaler.engine.reproduce.table import write_tables
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / "configs" / "shapes"
SMALL = ["SOLVER.MAX_ITER", "2", "DATALOADER.TRAIN_BATCH_SIZE", "2", "DATALOADER.NUM_WORKERS", "0"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shapes"
    make_shapes(str(folder), 20, seed=0)
    return folder


def arguments(tmp_path, data, *names, **changes):
    given = {
        "data_set": "shapes",
        "suite": None,
        "names": list(names),
        "out": str(tmp_path / "runs"),
        "jobs": 1,
    }
    given |= {"data": str(data), "threads": 1, "fresh": False, "opts": SMALL, **changes}
    return argparse.Namespace(**given)


def write_suite(folder, text, *names):
    for name in names:
        (folder / f"{name}.yaml").write_text("MODEL: {}\n")
    (folder / "bars.yaml").write_text(text)


def test_every_config_of_the_shapes_has_a_bar():
    suites = {suite: reproduce.read_suite(SHAPES, suite=suite) for suite in reproduce.SUITES}
    named = {Path(entry.config).stem for entry in suites["all"]}
    # What is no config of its own, and second stages, which train_net --then runs.
    bases = {"base", "video_base", "understanding_base", "tden_base", "vilbert_base"}
    bases |= {"x2vlm_base"}
    others = bases | {"bars", "bars_understanding", "bars_x2vlm", "quickstart"}
    stages = {path.stem for path in SHAPES.glob("*rl.yaml")}
    assert named | others | stages == {path.stem for path in SHAPES.glob("*.yaml")}
    assert not named & (others | stages)
    assert suites["all"] == [e for name in reproduce.SUITES[:-1] for e in suites[name]]
    assert all(0 < entry.bar <= 1 for entry in suites["all"])


def test_a_run_brings_the_one_that_it_starts_from():
    names = ["uniter_retrieval_pretrained", "updown"]
    entries = reproduce.read_suite(SHAPES, names, "all")
    assert [entry.name for entry in entries] == ["uniter_pretrain", *names]
    assert entries[1].start == "uniter_pretrain"
    assert entries[1].config.endswith("uniter_retrieval.yaml")
    assert entries[1].overrides == ("SOLVER.MAX_ITER", 150)


def test_bars_default_and_own(tmp_path):
    bars = "DEFAULT: 0.7\nLEAVE_OUT: [base]\nBARS: {b: {BAR: 0.5, REASON: It is blind.}}\n"
    write_suite(tmp_path, bars, "a", "b", "base")
    assert [(e.name, e.bar, e.reason) for e in reproduce.read_suite(tmp_path)] == [
        ("a", 0.7, ""),
        ("b", 0.5, "It is blind."),
    ]
    assert [entry.name for entry in reproduce.read_suite(tmp_path, ["b"])] == ["b"]


@pytest.mark.parametrize(
    ("bars", "names", "message"),
    [
        ("DEFAULT: 0.7\nLEAVE_OUT: []\nBARS: {c: {BAR: 0.9}}\n", [], "names 'c'"),
        ("DEFAULT: 0.7\nLEAVE_OUT: []\nBARS: {a: {BAR: 0.5}}\n", [], "gives no REASON"),
        ("DEFAULT: 0.7\nLEAVE_OUT: []\nBARS: {}\n", ["updwn"], "did you mean 'updown'"),
    ],
)
def test_wrong_bars_and_names_are_said(tmp_path, bars, names, message):
    write_suite(tmp_path, bars, "a", "updown")
    with pytest.raises(UserError, match=message):
        reproduce.read_suite(tmp_path, names)


def test_data_elsewhere_replace_the_folder_of_the_config(tmp_path):
    config = str(SHAPES / "updown_features.yaml")
    cfg = read_config(config, str(tmp_path), "/elsewhere", ["SOLVER.EPOCH", 3])
    assert cfg.DATALOADER.TRAIN_ANNFILE == "/elsewhere/captions_train.json"
    assert cfg.DATALOADER.FEATS_FOLDER == "/elsewhere/features"
    assert cfg.SOLVER.EPOCH == 3
    assert str(tmp_path) == cfg.OUTPUT_DIR


def test_the_oracle_needs_its_scenes(tmp_path, data):
    scores = reproduce.oracle_scores(data / "captions_test.json")
    assert scores["CIDEr-D"] > 0.5
    with pytest.raises(UserError, match="no scenes"):
        reproduce.oracle_scores(tmp_path / "captions.json")


@pytest.mark.slow
def test_a_suite_is_trained_once_and_compared(tmp_path, data, capsys):
    args = arguments(tmp_path, data, "updown_features", "transformer_features", jobs=2)
    assert command.run(args) == 1  # two steps reach no bar
    printed = capsys.readouterr()
    assert "below the bar or failed: updown_features, transformer_features" in printed.err
    folder = tmp_path / "runs"
    table = (folder / "comparison.md").read_text()
    assert table in printed.out and "(too low)" in table
    assert "<table>" in (folder / "comparison.html").read_text()
    result = json.loads((folder / "updown_features" / "result.json").read_text())
    assert result["iterations"] == 2 and result["threads"] == 1
    assert result["captions_per_second"] > 0 and result["parameters"] > 100_000
    assert result["share"] == result["scores"]["CIDEr-D"] / result["oracle"]["CIDEr-D"]

    trained = (folder / "updown_features" / "model_final.pth").stat().st_mtime_ns
    command.run(args)
    assert (folder / "updown_features" / "model_final.pth").stat().st_mtime_ns == trained
    command.run(arguments(tmp_path, data, "updown_features", opts=[*SMALL, "SEED", "7"]))
    assert (folder / "updown_features" / "model_final.pth").stat().st_mtime_ns > trained


def test_a_result_counts_for_its_config_and_data_only(tmp_path, data):
    config = str(SHAPES / "updown_features.yaml")
    cfg = read_config(config, str(tmp_path), str(data))
    assert finished_result(cfg) is None
    result = {"fingerprint": reproduce.single.fingerprint(cfg), "share": 1.0}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert finished_result(cfg) == result
    other = read_config(config, str(tmp_path), str(data), ["SOLVER.BASE_LR", 0.5])
    assert finished_result(other) is None


def test_a_config_that_fails_is_named_and_the_others_go_on(tmp_path, data, capsys):
    args = arguments(tmp_path, data, "updown_features", opts=["SOLVER.NO_SUCH_KEY", "1"])
    assert command.run(args) == 1
    assert "updown_features: failed: Non-existent config key" in capsys.readouterr().out


def test_all_over_their_bars(tmp_path):
    result = {"scores": {"CIDEr-D": 2.0}, "share": 0.8, "steps_per_second": 9.0, "threads": 1}
    result |= {
        "captions_per_second": 70.0,
        "parameters": 530_000,
        "train_seconds": 90.0,
        "train_cpu_seconds": 60.0,
    }
    entry = reproduce.Entry("updown", "updown.yaml", 0.7)
    text = write_tables(tmp_path, [entry], {"updown": result}, "Title")
    assert "| updown  | 2.000     | 80%             | 70%   |" in text
    assert command.passes(entry, {"updown": result})
    assert not command.passes(entry, {})


@pytest.mark.parametrize("changes", [{"jobs": 0}, {"threads": 0}])
def test_wrong_numbers_are_refused(tmp_path, data, changes):
    with pytest.raises(UserError, match="at least 1"):
        command.run(arguments(tmp_path, data, "updown_features", **changes))


def test_an_interrupted_run_goes_on(tmp_path, data, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    def run(**changes):
        opts = [*SMALL, *(part for pair in changes.items() for part in pair)]
        cfg = read_config(str(SHAPES / "updown_features.yaml"), str(tmp_path), str(data), opts)
        return reproduce.train_and_test(cfg)

    weights = tmp_path / "model_final.pth"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(reproduce.single, "predict", interrupt)
        run()
    trained = weights.stat().st_mtime_ns
    assert run()["iterations"] == 2
    assert weights.stat().st_mtime_ns == trained  # nothing was left to train
    run(SEED=9)
    assert weights.stat().st_mtime_ns > trained  # the run of another config
