"""X²-VLM learns: a short pre-training, which its tasks share, and a few steps of each."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from xmodaler.datasets.synthetic import make_shapes
from xmodaler.engine.reproduce import read_config, read_suite, train_and_test
from xmodaler.engine.reproduce.suite import SHARE

ROOT = Path(__file__).resolve().parents[2]
PLAN = yaml.safe_load((Path(__file__).parent / "bars.yaml").read_text())["X2VLM"]
SUITE = {entry.name: entry for entry in read_suite(ROOT / "configs" / "shapes", suite="x2vlm")}
FIRST = "x2vlm_pretrain"
BLIND = 0.065  # share of the oracle's CIDEr-D that a sentence gets when it is said of everything


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("x2vlm") / "shapes"
    make_shapes(str(folder), **PLAN["DATA"], x2vlm=True)
    return folder


def run(name, data, output, *further):
    """The result of a run with the settings of the plan, on one thread."""
    settings = {**PLAN["SETTINGS"], **PLAN["MODELS"][name].get("SETTINGS", {})}
    opts = [part for pair in settings.items() for part in pair]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        cfg = read_config(SUITE[name].config, str(output), str(data), [*opts, *further])
        return train_and_test(cfg)
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def pretrained(data, tmp_path_factory):
    output = tmp_path_factory.mktemp("x2vlm_pretrained")
    return run(FIRST, data, output), output / "model_final.pth"


def some_records(folder, name, number):
    """Files of a few records of training, as overrides that learn and test on them."""
    cfg = read_config(SUITE[name].config, "", str(folder))
    files = []
    for part in cfg.DATALOADER.TRAIN_ANNFILE.split(","):
        language, _, file = part.rpartition("=")
        path = Path(file)
        text, lines = path.read_text(encoding="utf-8"), path.suffix == ".jsonl"
        records = list(map(json.loads, text.splitlines())) if lines else json.loads(text)
        chosen = records[:number]
        some = path.with_name(f"some{path.suffix}")
        written = "\n".join(map(json.dumps, chosen)) if lines else json.dumps(chosen)
        some.write_text(written, encoding="utf-8")
        files.append(f"{language}={some}" if language else str(some))
    joined = ",".join(files)
    keys = ["DATALOADER.TRAIN_ANNFILE", "DATALOADER.TEST_ANNFILE"]
    if cfg.INFERENCE.TEST_ANNFILE:  # the truth of the records themselves
        keys.append("INFERENCE.TEST_ANNFILE")
    return [part for key in keys for part in (key, joined)]


def test_every_run_has_a_bar():
    assert PLAN["MODELS"].keys() == SUITE.keys()


@pytest.mark.slow
def test_pretraining_learns(pretrained):
    result, own = pretrained[0], PLAN["MODELS"][FIRST]
    for metric, bar in own["BARS"].items():
        assert result["scores"][metric] >= bar > 3 * result["chance"][metric], metric


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in PLAN["MODELS"] if name != FIRST])
def test_task_learns(name, data, pretrained, tmp_path):
    entry, own = SUITE[name], PLAN["MODELS"][name]
    further = ["MODEL.WEIGHTS", str(pretrained[1])]
    if "BY_HEART" in own:
        further += some_records(data, name, own["BY_HEART"])
    result = run(name, data, tmp_path, *further)
    if entry.metric == SHARE:
        score, chance = result["share"], BLIND
    else:
        score, chance = result["scores"][entry.metric], result["chance"][entry.metric]
    assert score >= own["BAR"], f"{entry.metric} {score:.3f}, chance {chance:.3f}"
    assert own["BAR"] > chance + min(0.05, chance)
