"""Every captioner through `inference.load`: arrays in, the sentences of the reference out."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from xmodaler.config import kfg
from xmodaler.inference import load

FIXTURES = Path(__file__).resolve().parents[1] / "parity" / "data" / "captioning"
MODELS = sorted(path.parent.name for path in FIXTURES.glob("*/config.yaml"))
NAMES = {
    kfg.RELATION: "relations",
    kfg.ATTRIBUTE: "attributes",
    kfg.GLOBAL_FEATS: "global_features",
    kfg.SEMANTICS_IDS: "semantics_ids",
}
BLIND = {"lstm_a3", "video_mplstm"}  # have no attention
GRID = {"clip_transformer", "cosnet"}  # attend to the global vector too
# As released, what padding is beside a clip changes its caption.
COMPATIBLE = {"video_tdconved"}


@pytest.fixture(scope="module", params=MODELS)
def case(request):
    """(name, captioner, items, meta): the arrays of the fixture's images, without their padding."""
    folder = FIXTURES / request.param
    captioner = load(folder / "weights.safetensors", device="cpu")
    batch = load_file(folder / "inputs.safetensors")
    tensors = {key[5:]: value for key, value in batch.items() if key.startswith("test/")}
    items = []
    for row in range(len(tensors[kfg.ATT_FEATS])):
        regions = int(tensors[kfg.ATT_MASKS][row].sum())
        item = {"features": tensors[kfg.ATT_FEATS][row, :regions].numpy()}
        for key, name in NAMES.items():
            if key in tensors:
                item[name] = tensors[key][row].numpy()
        if kfg.RELATION in tensors:
            item["relations"] = item["relations"][:regions, :regions]
        if kfg.SEMANTICS_MASK in tensors:
            words = int(tensors[kfg.SEMANTICS_MASK][row].sum())
            item["semantics_ids"] = item["semantics_ids"][:words]
        items.append(item)
    meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    return request.param, captioner, items, meta


def test_all_captioners_are_here():
    assert len(MODELS) == 13


@pytest.mark.parametrize("beam_size", [1, 3])
def test_the_reference_sentences(case, beam_size):
    _, captioner, items, meta = case
    expected = meta["sentences"]["greedy" if beam_size == 1 else f"beam{beam_size}"]
    captions = captioner.caption(items, beam_size=beam_size)
    assert [caption.text for caption in captions] == expected


def test_mixed_batches_and_attention(case):
    name, captioner, items, _ = case
    together = captioner.caption(items, return_attention=True, batch_size=len(items))
    for caption, item in zip(together, items, strict=True):
        if name in BLIND:
            assert caption.attention is None
        else:
            weights = caption.attention
            positions = len(item["features"]) + (name in GRID)
            assert weights.shape == (len(caption.words), positions)
            np.testing.assert_allclose(weights.sum(1), 1, atol=1e-3)
        if name not in COMPATIBLE:
            alone = captioner.caption(item)[0]
            assert alone.text == caption.text
            assert alone.score == pytest.approx(caption.score, abs=1e-4)
