"""The recurrent encoder, and tags as memory."""

import pytest
import torch

from xmodaler.config import get_cfg, kfg
from xmodaler.modeling.encoder import (
    LSTMEncoder,
    TagEncoder,
    UpDownEncoder,
    add_encoder_config,
    build_encoder,
)


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_only_what_is_visible_is_read(bidirectional, layers):
    torch.manual_seed(0)
    encoder = LSTMEncoder(in_dim=5, out_dim=8, num_layers=layers, bidirectional=bidirectional)
    feats = torch.randn(4, 6, 5)
    masks = torch.tensor(
        [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]]
    ).bool()
    produced = encoder({kfg.ATT_FEATS: feats, kfg.ATT_MASKS: masks}, mode="v")
    for row in range(3):
        states, (last, _) = encoder.lstm(feats[row][masks[row]].unsqueeze(0))
        torch.testing.assert_close(produced[kfg.ATT_FEATS][row][masks[row]], states[0])
        final = last[-2:] if bidirectional else last[-1:]
        torch.testing.assert_close(produced[kfg.GLOBAL_FEATS][row], final.flatten())
    assert not produced[kfg.ATT_FEATS][~masks].any()
    assert not produced[kfg.GLOBAL_FEATS][3].any()
    assert encoder({}, mode="t") == {}


def tag_batch():
    return {
        kfg.ATT_FEATS: torch.randn(2, 3, 4),
        kfg.ATT_MASKS: torch.tensor([[True, True, True], [True, False, False]]),
        kfg.EXT_ATT_MASKS: torch.tensor([[0.0, 0.0, 0.0], [0.0, -9.0, -9.0]]),
        kfg.ATTRIBUTE: torch.tensor([[0.9, 0.1, 0.6], [0.2, 0.1, 0.0]]),
        # Two classes and the ground, which is no tag however sure it is.
        kfg.V_TARGET: torch.tensor(
            [[[0.9, 0.0, 0.1], [0.1, 0.1, 0.8]], [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]
        ),
    }


def random_tags(**options):
    torch.manual_seed(0)
    sizes = {"num_attributes": 3, "num_objects": 3, "max_tags": 4, "min_probability": 0.5}
    encoder = TagEncoder(dim=4, **{**sizes, **options})
    torch.nn.init.normal_(encoder.sureness)
    return encoder


def test_the_likeliest_tags_follow_the_regions():
    encoder, batch = random_tags(), tag_batch()
    produced = encoder(batch, mode="v")
    assert produced[kfg.ATT_FEATS].shape == (2, 7, 4)
    torch.testing.assert_close(produced[kfg.ATT_FEATS][:, :3], batch[kfg.ATT_FEATS])
    for place, (tag, probability) in enumerate([(0, 0.9), (5, 0.8), (2, 0.6)]):
        expected = encoder.embeddings.weight[tag] + probability * encoder.sureness
        torch.testing.assert_close(produced[kfg.ATT_FEATS][0, 3 + place], expected)
    assert produced[kfg.ATT_MASKS][:, 3:].tolist() == [[True, True, True, False], [False] * 4]
    hidden = produced[kfg.EXT_ATT_MASKS]
    torch.testing.assert_close(hidden[:, :3], batch[kfg.EXT_ATT_MASKS])
    assert torch.equal(hidden[:, 3:] == 0, produced[kfg.ATT_MASKS][:, 3:])
    assert kfg.GLOBAL_FEATS not in produced


def test_the_inner_encoder_sees_the_regions_alone():
    encoder, batch = random_tags(encoder=UpDownEncoder()), tag_batch()
    batch[kfg.EXT_ATT_MASKS] = batch[kfg.EXT_ATT_MASKS][:, None, None]  # as Transformers have it
    produced = encoder(batch, mode="v")
    assert produced[kfg.EXT_ATT_MASKS].shape == (2, 1, 1, 7)
    regions = UpDownEncoder()(batch)[kfg.GLOBAL_FEATS]
    tags = produced[kfg.ATT_FEATS][0, 3:6].mean(0)
    torch.testing.assert_close(produced[kfg.GLOBAL_FEATS][0], regions[0] + tags)
    torch.testing.assert_close(produced[kfg.GLOBAL_FEATS][1], regions[1])  # no tag is sure enough


def test_one_source_of_tags_is_enough():
    batch = tag_batch()
    del batch[kfg.V_TARGET]
    assert random_tags(num_objects=0, max_tags=9)(batch)[kfg.ATT_FEATS].shape == (2, 6, 4)
    batch = tag_batch()
    del batch[kfg.ATTRIBUTE]
    assert random_tags(num_attributes=0, max_tags=2)(batch)[kfg.ATT_FEATS].shape == (2, 5, 4)


def test_the_inner_encoder_brings_its_own_settings(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(
        "MODEL:\n  ENCODER: TagEncoder\n  VISUAL_EMBED: {OUT_DIM: 8}\n"
        "  TAGS: {ENCODER: GCNEncoder, ATTRIBUTE_NUM: 3}\n"
        "  GCN: {IN_DIM: 8, OUT_DIM: 8, GRAPH: spatial, RELATION_NUM: 12}\n"
    )
    cfg = get_cfg()
    add_encoder_config(cfg, cfg.load_from_file_tmp(str(path)))
    cfg.merge_from_file(str(path))
    encoder = build_encoder(cfg)
    assert isinstance(encoder, TagEncoder) and encoder.encoder.graph == "spatial"
