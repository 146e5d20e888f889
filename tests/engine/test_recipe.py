"""Trainings one after the other: --then, the best weights, resuming across the switch."""

import json
from pathlib import Path

import pytest
import torch

from xmodaler.engine import DefaultTrainer, default_argument_parser
from xmodaler.engine.recipe import RECORD, best_weights
from xmodaler.engine.running import launch_run, load_stages
from xmodaler.utils.errors import UserError

EPOCH = 6  # iterations: 24 images, batches of 4
BEST = {"SOLVER__BEST_METRIC": "val/Hash"}


@pytest.fixture
def recipe(toy, tmp_path, monkeypatch):
    """Runs a recipe of toy configs ``a.yaml`` and ``b.yaml``; returns its metrics."""

    def write(name, **changes):
        path = tmp_path / f"{name}.yaml"
        path.write_text(toy.toy_config(tmp_path / "unused", **changes).dump())
        return str(path)

    def arguments(*more, out="out"):
        line = ["--config-file", str(tmp_path / "a.yaml"), "--then", str(tmp_path / "b.yaml")]
        return default_argument_parser().parse_args(
            [*line, *more, "OUTPUT_DIR", str(tmp_path / out)]
        )

    monkeypatch.chdir(tmp_path)
    for name in ("WORLD_SIZE", "RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    write("a", **BEST)
    write("b", **BEST)
    start = lambda *more, **names: launch_run(arguments(*more, **names))  # noqa: E731
    start.write, start.arguments = write, arguments
    return start


def model_of(path):
    return torch.load(path, weights_only=True)["model"]


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name in left:
        assert torch.equal(left[name], right[name]), name


def test_the_second_stage_starts_from_the_best_of_the_first(recipe, tmp_path):
    # The second stage learns nothing: its weights are those that it started from.
    metrics = recipe("2:SOLVER.BASE_LR", "0", "2:SOLVER.WEIGHT_DECAY", "0", "2:SOLVER.EPOCH", "1")
    out = tmp_path / "out"
    assert metrics["val/nested/Count"] == 7
    assert_same(model_of(out / "1_a" / "model_best.pth"), model_of(out / "2_b" / "model_final.pth"))
    assert json.loads((out / RECORD).read_text())["finished"] == 2
    lines = (out / "2_b" / "metrics.json").read_text().splitlines()
    assert json.loads(lines[-1])["iteration"] == EPOCH - 1
    # Each stage has its own log.
    first, second = ((out / name / "log.txt").read_text() for name in ("1_a", "2_b"))
    assert "a.yaml:" in first and "b.yaml:" not in first
    assert "b.yaml:" in second and "a.yaml:" not in second


@pytest.mark.parametrize("stopped_in", ["1_a", "2_b"])
def test_resuming_across_the_switch_changes_nothing(recipe, tmp_path, monkeypatch, stopped_in):
    recipe(out="whole")
    plain = DefaultTrainer.run_step
    steps = []

    def run_step(trainer):
        stage = Path(trainer.output_dir).name
        if not resumed and (stage, trainer.iter) == (stopped_in, EPOCH + 2):
            raise KeyboardInterrupt
        steps.append((stage, trainer.iter))
        plain(trainer)

    monkeypatch.setattr(DefaultTrainer, "run_step", run_step)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        recipe()
    resumed = True
    steps.clear()
    recipe("--resume")
    assert steps[0] == (stopped_in, EPOCH)
    for name in ("1_a", "2_b"):
        files = [tmp_path / out / name / "model_final.pth" for out in ("whole", "out")]
        assert_same(*map(model_of, files))
    steps.clear()
    assert recipe("--resume") == {} and steps == []


def test_a_new_recipe_ignores_the_checkpoints_of_an_old_one(recipe, tmp_path, monkeypatch):
    recipe()
    plain = DefaultTrainer.run_step
    steps = []

    def run_step(trainer):
        if not resumed and trainer.iter == EPOCH + 1:
            raise KeyboardInterrupt
        steps.append((Path(trainer.output_dir).name, trainer.iter))
        plain(trainer)

    monkeypatch.setattr(DefaultTrainer, "run_step", run_step)
    resumed = False
    with pytest.raises(KeyboardInterrupt):
        recipe()
    resumed = True
    steps.clear()
    recipe("--resume")
    assert ("1_a", EPOCH) in steps and ("2_b", 0) in steps


def test_overrides_of_all_stages_and_of_one(recipe, tmp_path):
    weights = tmp_path / "start.pth"
    line = ["SOLVER.BASE_LR", "0.5", "2:SOLVER.BASE_LR", "0.25", "MODEL.WEIGHTS", str(weights)]
    first, second = load_stages(recipe.arguments(*line))
    assert (first.cfg.SOLVER.BASE_LR, second.cfg.SOLVER.BASE_LR) == (0.5, 0.25)
    assert str(weights) == first.cfg.MODEL.WEIGHTS and second.cfg.MODEL.WEIGHTS == "best"
    assert [Path(stage.folder).name for stage in (first, second)] == ["1_a", "2_b"]
    _, second = load_stages(recipe.arguments("2:MODEL.WEIGHTS", "other.pth"))
    assert second.cfg.MODEL.WEIGHTS == "other.pth"
    recipe.write("b", MODEL__WEIGHTS="named.pth")
    assert load_stages(recipe.arguments())[1].cfg.MODEL.WEIGHTS == "named.pth"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["--eval-only"], "--then trains and --eval-only does not"),
        (["3:SOLVER.EPOCH", "1"], "override 3:SOLVER.EPOCH is for stage 3, but there are 2"),
        (["2:OUTPUT_DIR", "x"], "2:OUTPUT_DIR: stages write"),
        (["2:SOLVER.EPOHC", "1"], "SOLVER.EPOCH"),
        (["2:ENGINE.NAME", "NoTrainer"], "NoTrainer"),
        (["MODEL.WEIGHTS", "best"], "the first stage has no training before it"),
    ],
)
def test_mistakes_are_found_before_anything_is_trained(recipe, tmp_path, line, message):
    with pytest.raises((UserError, KeyError), match=message):
        recipe(*line)
    assert not (tmp_path / "out").exists()


def test_other_mistakes(recipe, tmp_path, toy):
    parse = default_argument_parser().parse_args
    with pytest.raises(UserError, match="--config-file must name"):
        launch_run(parse(["--then", str(tmp_path / "b.yaml")]))
    with pytest.raises(UserError, match="this run has no training before it"):
        launch_run(parse(["--config-file", str(tmp_path / "a.yaml"), "MODEL.WEIGHTS", "best"]))
    out = tmp_path / "out"
    out.mkdir()
    record = {"configs": ["x.yaml", "b.yaml"], "started": 1, "finished": 1}
    (out / RECORD).write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"another recipe \(x then b\);"):
        recipe("--resume")
    (out / RECORD).write_text("{")
    with pytest.raises(UserError, match="damaged"):
        recipe("--resume")


def test_best_weights_of_a_folder(tmp_path):
    with pytest.raises(UserError, match="neither best nor final weights"):
        best_weights(str(tmp_path))
    (tmp_path / "model_final.pth").touch()
    assert best_weights(str(tmp_path)).endswith("model_final.pth")
    (tmp_path / "best_checkpoint").write_text("model_best.pth")
    (tmp_path / "model_best.pth").touch()
    assert best_weights(str(tmp_path)).endswith("model_best.pth")
