"""Frames that know their place."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.utils.errors import UserError

FRAMES = {"MODEL__VISUAL_EMBED__NAME": "FrameEmbedding"}


@pytest.mark.parametrize("kind", ["updown", "transformer"])
@pytest.mark.parametrize("name", ["VisualBaseEmbedding", "FrameEmbedding"])
def test_only_positions_tell_a_clip_from_its_reverse(tiny, kind, name):
    model = tiny.model(kind, MODEL__VISUAL_EMBED__NAME=name).eval()
    batch = tiny.batch(images=2, groups=1)
    batch[kfg.ATT_MASKS] = torch.ones_like(batch[kfg.ATT_MASKS])
    with torch.no_grad():
        forward = model(batch)[kfg.G_LOGITS]
        backward = model({**batch, kfg.ATT_FEATS: batch[kfg.ATT_FEATS].flip(1)})[kfg.G_LOGITS]
    same = torch.allclose(forward, backward, atol=1e-5)
    assert same == (name == "VisualBaseEmbedding")


def test_frames_left_out_keep_the_positions_of_the_others(tiny):
    """In training padding is left out of the arithmetic; the numbers are those of evaluation."""
    model, batch = tiny.without_dropout(tiny.model("transformer", **FRAMES)), tiny.batch()
    batch[kfg.ATT_MASKS] = batch[kfg.ATT_MASKS].clone()
    batch[kfg.ATT_MASKS][0, 3:] = False  # little enough is real to be worth it
    scored = batch[kfg.G_TARGET_IDS] >= 0
    trained = model.train()(batch)[kfg.G_LOGITS][scored]
    torch.testing.assert_close(trained, model.eval()(batch)[kfg.G_LOGITS][scored])


def test_clips_with_more_frames_than_positions_are_refused(tiny):
    cfg = {**FRAMES, "MODEL__FRAME_EMBED__MAX_FRAMES": 4}
    with pytest.raises(UserError, match="MAX_FRAMES"):
        tiny.model("updown", **cfg)(tiny.batch(regions=5))
