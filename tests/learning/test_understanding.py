"""Every model of understanding learns: a short training brings it far above chance."""

from pathlib import Path

import pytest
import torch
import yaml

from xmodaler.datasets.synthetic import make_shapes
from xmodaler.engine.reproduce import read_config, read_suite, train_and_test
from xmodaler.engine.reproduce.suite import SHARE

ROOT = Path(__file__).resolve().parents[2]
BARS = yaml.safe_load((Path(__file__).parent / "bars.yaml").read_text())
PLAN = BARS["UNDERSTANDING"]
SUITE = {
    entry.name: entry
    for entry in read_suite(ROOT / "configs" / "shapes", suite="understanding")
    if not entry.start and entry.name in entry.config  # no second training of a config
}

# Share of the oracle's CIDEr-D that no sentence gets when it is said of everything.
BLIND = 0.065


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("understanding") / "shapes"
    make_shapes(str(folder), **{**BARS["DATA"], "videos": 0})
    return folder


def test_every_model_and_task_has_a_bar():
    assert PLAN["MODELS"].keys() == SUITE.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", SUITE)
def test_model_learns(name, data, tmp_path):
    entry, own = SUITE[name], PLAN["MODELS"][name]
    settings = {**PLAN["SETTINGS"], **own.get("SETTINGS", {})}
    opts = [part for pair in settings.items() for part in pair]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = train_and_test(read_config(entry.config, str(tmp_path), str(data), opts))
    finally:
        torch.set_num_threads(threads)
    if entry.metric == SHARE:
        score, chance = result["share"], BLIND
    else:
        score, chance = result["scores"][entry.metric], result["chance"][entry.metric]
    assert score >= own["BAR"], f"{entry.metric} {score:.3f}, chance {chance:.3f}"
    assert score > chance + min(0.05, 2 * chance)
