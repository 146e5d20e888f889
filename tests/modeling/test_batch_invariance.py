"""A picture's caption and its scores do not change with its neighbours in a batch or padding.

Every captioner of the fixtures and every config for generated data is tried. TDConvED is built in
the way that samples each clip by itself; the released way depends on padding, as its own tests say.
"""

import re
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from xmodaler.checkpoint import XmodalerCheckpointer
from xmodaler.config import kfg, load_config
from xmodaler.datasets import build_dataset_mapper
from xmodaler.datasets.collate import collate
from xmodaler.datasets.synthetic import make_shapes
from xmodaler.engine.reproduce import read_suite
from xmodaler.modeling import add_config, build_model

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = sorted(path.parent for path in (ROOT / "tests/parity/data").glob("**/config.yaml"))
CONFIGS = sorted(Path(entry.config) for entry in read_suite(ROOT / "configs/shapes"))
ALONE = ["MODEL.TDCONVED.ENCODER.COMPATIBLE", False]
SAMPLES = 4


def build(config, overrides):
    if "TDConvEDEncoder" in Path(config).read_text():
        overrides = [*overrides, *ALONE]
    cfg = load_config(str(config), ["MODEL.DEVICE", "cpu", *overrides], add_config)
    torch.manual_seed(0)
    return cfg, build_model(cfg).eval()


def real_part(values, key, row, masks):
    """A row of a padded tensor without its padding."""
    count = int(masks[kfg.ATT_MASKS][row].sum())
    if key in (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC):
        return values[row, :count]
    if key == kfg.RELATION:
        return values[row, :count, :count]
    if key == kfg.SEMANTICS_IDS:
        return values[row, : int(masks[kfg.SEMANTICS_MASK][row].sum())]
    return values[row]


@lru_cache(maxsize=1)
def from_fixture(folder):
    """The model of a fixture and the samples behind its test batch."""
    _, model = build(folder / "config.yaml", [])
    XmodalerCheckpointer(model).load(str(folder / "weights.safetensors"))
    tensors = load_file(str(folder / "inputs.safetensors"))
    batch = {key[5:]: value for key, value in tensors.items() if key.startswith("test/")}
    masks = {key: batch.pop(key) for key in (kfg.ATT_MASKS, kfg.SEMANTICS_MASK) if key in batch}
    samples = [
        {
            kfg.IDS: str(row),
            **{key: real_part(values, key, row, masks) for key, values in batch.items()},
        }
        for row in range(SAMPLES)
    ]
    return model, samples


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes") / "data"
    make_shapes(str(folder), 60, 3, 64, 40)
    return folder


@lru_cache(maxsize=1)
def from_config(config, folder):
    """The untrained model of a config, and samples as its dataset makes them."""
    cfg, model = build(config, [])
    move_data(cfg, folder)
    mapper = build_dataset_mapper(cfg, cfg.DATASETS.TEST, stage="test")
    samples = [mapper(record) for record in mapper.load_data(cfg)[:SAMPLES]]
    with torch.no_grad():  # so that words differ enough in probability for choices to be clear
        model.predictor.logits.weight.mul_(5)
    return model, samples


def move_data(node, folder):
    for key, value in node.items():
        if isinstance(value, dict):
            move_data(value, folder)
        elif isinstance(value, str):
            node[key] = re.sub("^data/shapes", str(folder), value)


def longer(sample):
    """A neighbour with twice the regions, which pads all others."""
    longer = {**sample, kfg.IDS: "long"}
    for key in (kfg.ATT_FEATS, kfg.ATT_FEATS_LOC, kfg.RELATION):
        if key in sample:
            value = torch.as_tensor(sample[key])
            longer[key] = value.repeat(2, 2) if key == kfg.RELATION else value.repeat(2, 1)
    return longer


@torch.no_grad()
def decode(model, samples):
    """Words and their log-probabilities (B, T) by beam search, and greedy ones."""
    model.beam_searcher.beam_size = 3
    results = []
    for use_beam_search in (True, False):
        batch = model.preprocess_batch(collate([dict(sample) for sample in samples]))
        out = model(batch, use_beam_search=use_beam_search)
        results.append((out[kfg.G_SENTS_IDS], out[kfg.G_LOGP]))
    return results


def check(model, samples, order, padded):
    chosen = [samples[row] for row in order]
    if padded and not hasattr(model.visual_embed, "g_embeddings"):  # grids have one size
        chosen.append(longer(samples[0]))
    together = decode(model, chosen)
    for place, row in enumerate(order):
        for (ids, scores), (ids_alone, scores_alone) in zip(
            together, decode(model, [samples[row]]), strict=True
        ):
            assert torch.equal(ids[place], ids_alone[0])
            ended = (ids_alone[0] == 0).cumsum(0) > 1  # what is behind the end is nobody's score
            torch.testing.assert_close(
                scores[place].masked_fill(ended, 0),
                scores_alone[0].masked_fill(ended, 0),
                atol=1e-4,
                rtol=1e-4,
            )


BATCHES = {
    "order": st.lists(st.integers(0, SAMPLES - 1), min_size=1, max_size=6),
    "padded": st.booleans(),
}


@pytest.mark.parametrize("folder", FIXTURES, ids=lambda folder: folder.name)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(**BATCHES)
def test_captioners_of_the_fixtures(folder, order, padded):
    check(*from_fixture(folder), order, padded)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
@settings(max_examples=3, deadline=None, derandomize=True)
@given(**BATCHES)
def test_captioners_of_generated_data(config, shapes, order, padded):
    check(*from_config(config, shapes), order, padded)


def test_every_captioner_is_tried():
    assert len(FIXTURES) >= 13 and len(CONFIGS) >= 13
