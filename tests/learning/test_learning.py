"""Every captioner learns: a short training brings it far above what a blind one scores."""

from collections import Counter
from pathlib import Path

import pytest
import torch
import yaml

from xmodaler.datasets.annotations import read_captions
from xmodaler.datasets.synthetic import make_shapes
from xmodaler.engine.reproduce import oracle_scores, read_config, read_suite, train_and_test
from xmodaler.evaluation.caption_metrics import score

ROOT = Path(__file__).resolve().parents[2]
PLAN = yaml.safe_load((Path(__file__).parent / "bars.yaml").read_text())
SUITE = [
    entry
    for entry in read_suite(ROOT / "configs" / "shapes")
    if entry.name not in PLAN["LEAVE_OUT"]
]
# Share of the oracle's CIDEr-D that no sentence gets when it is said of everything.
BLIND = {"captions": 0.065, "video_captions": 0.11}


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning") / "shapes"
    make_shapes(str(folder), **PLAN["DATA"])
    return folder


def plan(name):
    """The bar and the overrides of a config."""
    own = PLAN["MODELS"].get(name, {})
    settings = {**PLAN["SETTINGS"], **own.get("SETTINGS", {})}
    return own.get("BAR", PLAN["BAR"]), [part for pair in settings.items() for part in pair]


def test_bars_are_far_above_chance_and_explained():
    assert PLAN["BAR"] > 3 * max(BLIND.values())
    names = {entry.name for entry in SUITE}
    assert PLAN["MODELS"].keys() <= names
    for name, own in PLAN["MODELS"].items():
        bar = plan(name)[0]
        assert bar >= PLAN["BAR"] or (bar >= 2 * BLIND["captions"] and own["REASON"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["captions", "video_captions"])
def test_a_blind_captioner_scores_little(data, kind):
    """Always saying one of the commonest sentences of training gets no model over a bar."""
    annotations = str(data / f"{kind}_test.json")
    images, _ = read_captions(annotations)
    training, _ = read_captions(str(data / f"{kind}_train.json"))
    common = Counter(text for image in training for text in image.captions).most_common(20)
    references = {image.image_id: image.captions for image in images}
    shares = []
    for sentence, _ in common:
        scores, _ = score(references, dict.fromkeys(references, sentence), ("CIDEr-D",))
        shares.append(scores["CIDEr-D"] / oracle_scores(annotations)["CIDEr-D"])
    assert max(shares) < BLIND[kind]


@pytest.mark.slow
@pytest.mark.parametrize("entry", SUITE, ids=lambda entry: entry.name)
def test_captioner_learns(entry, data, tmp_path):
    bar, settings = plan(entry.name)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        result = train_and_test(read_config(entry.config, str(tmp_path), str(data), settings))
    finally:
        torch.set_num_threads(threads)
    assert result["share"] >= bar, f"{result['scores']}, the oracle {result['oracle']}"
