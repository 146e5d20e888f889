"""Videos through a backbone: frames become tokens, padding nothing; memory stays bounded."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.utils.errors import UserError

VIDEOS = {
    "MODEL__VISUAL_EMBED__NAME": "TimmEmbedding",
    "MODEL__TIMM__MODEL_NAME": "test_resnet",
}


def clips(frames=(3, 5), side=64, seed=0):
    """Clips of several lengths, the padding full of noise, and the masks of their frames."""
    torch.manual_seed(seed)
    images = torch.randint(0, 256, (len(frames), max(frames), 3, side, side), dtype=torch.uint8)
    masks = torch.arange(max(frames)) < torch.tensor(frames)[:, None]
    return {kfg.IMAGES: images, kfg.ATT_MASKS: masks}


@pytest.mark.parametrize("grid", [1, 2, 0])
def test_tokens_of_frames(tiny, grid):
    embedding = tiny.model("updown", MODEL__TIMM__FRAME_GRID=grid, **VIDEOS).visual_embed.eval()
    batch = clips()
    out = embedding(batch)
    tokens = {1: 1, 2: 4, 0: 4}[grid]  # the map of this backbone has 2 x 2 cells
    assert out[kfg.ATT_FEATS].shape == (2, 5 * tokens, 16)
    masks = out[kfg.ATT_MASKS]
    assert masks.sum(1).tolist() == [3 * tokens, 5 * tokens] and masks[0, : 3 * tokens].all()
    picture = embedding({kfg.IMAGES: batch[kfg.IMAGES][1, 2:3]})[kfg.ATT_FEATS][0]
    frame = out[kfg.ATT_FEATS][1, 2 * tokens : 3 * tokens]
    if grid == 1:
        torch.testing.assert_close(frame, embedding_of_mean(embedding, batch)[None])
    else:
        torch.testing.assert_close(frame, picture)


def embedding_of_mean(embedding, batch):
    pixels = batch[kfg.IMAGES][1, 2:3].float() / 255
    cells = embedding.backbone((pixels - embedding.mean) / embedding.std)[-1]
    return embedding._finish(embedding.embeddings(cells.mean(dim=(2, 3))))[0]


@pytest.mark.parametrize("global_token", [False, True])
def test_a_clip_does_not_depend_on_its_neighbours(tiny, global_token):
    changes = {"MODEL__TIMM__FRAME_TIME": True, "MODEL__TIMM__GLOBAL_TOKEN": global_token}
    embedding = tiny.model("updown", **changes, **VIDEOS).visual_embed.eval()
    batch = clips()
    together = embedding(batch)
    alone = embedding({kfg.IMAGES: batch[kfg.IMAGES][:1, :3]})
    extra = int(global_token)
    assert alone[kfg.ATT_FEATS].shape == (1, 3 + extra, 16) and alone[kfg.ATT_MASKS].all()
    torch.testing.assert_close(together[kfg.ATT_FEATS][:1, : 3 + extra], alone[kfg.ATT_FEATS])
    assert together[kfg.ATT_MASKS].sum(1).tolist() == [3 + extra, 5 + extra]


def test_times_tell_equal_frames_apart(tiny):
    batch = {kfg.IMAGES: torch.zeros(1, 4, 3, 64, 64, dtype=torch.uint8)}
    still = tiny.model("updown", **VIDEOS).visual_embed.eval()(batch)[kfg.ATT_FEATS][0]
    assert (still - still[0]).abs().max() < 1e-6
    embedding = tiny.model("updown", MODEL__TIMM__FRAME_TIME=True, **VIDEOS).visual_embed.eval()
    with torch.no_grad():
        embedding.embeddings_time.weight.fill_(1.0)
    embedding.embeddings_act = None
    timed = embedding(batch)[kfg.ATT_FEATS][0]
    torch.testing.assert_close(timed[1:] - timed[:-1], torch.full((3, 16), 0.25))


@pytest.mark.parametrize("frozen", [True, False])
def test_a_backbone_without_gradients_sees_few_frames_at_a_time(tiny, frozen):
    changes = {"MODEL__TIMM__FROZEN": frozen, "MODEL__TIMM__FRAMES_AT_A_TIME": 3}
    embedding = tiny.model("updown", **changes, **VIDEOS).visual_embed
    seen = []
    embedding.backbone.register_forward_hook(lambda m, i, o: seen.append(i[0].shape[0]))
    embedding.train()(clips())
    assert seen == ([3, 3, 2] if frozen else [8])  # 3 + 5 real frames; padding is never seen
    seen.clear()
    with torch.no_grad():
        embedding.eval()(clips())
    assert seen == [3, 3, 2]


def test_a_captioner_learns_and_speaks_from_clips(tiny):
    model = tiny.model("transformer", MODEL__TIMM__FROZEN=True, **VIDEOS)
    batch = {**tiny.batch(images=2, groups=2), **clips()}
    del batch[kfg.ATT_FEATS]
    logits = model.train()(batch)[kfg.G_LOGITS]
    logits.sum().backward()
    trained = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert "visual_embed.embeddings.weight" in trained
    assert not any("backbone" in name for name in trained)
    with torch.no_grad():
        model.eval()
        both = model(batch, use_beam_search=True)[kfg.G_SENTS_IDS]
        one = {key: value[:1] for key, value in batch.items() if key in (kfg.IMAGES, kfg.ATT_MASKS)}
        alone = model(one, use_beam_search=True)[kfg.G_SENTS_IDS]
    assert both[:1].tolist() == alone.tolist()


def test_wrong_shapes_and_settings_are_explained(tiny):
    embedding = tiny.model("updown", **VIDEOS).visual_embed
    with pytest.raises(UserError, match=r"or videos \(B, frames, 3, height, width\)"):
        embedding({kfg.IMAGES: torch.zeros(2, 3, 64, 64, 3)})
    with pytest.raises(UserError, match="FRAME_GRID is -1"):
        tiny.model("updown", MODEL__TIMM__FRAME_GRID=-1, **VIDEOS)
