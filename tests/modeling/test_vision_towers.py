"""Vision towers: under captioners, on videos and regions, with weights from files."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.functional.func_resize import resize_position_rows, resize_relative_table
from xmodaler.losses import CrossEntropy
from xmodaler.modeling.embedding.vision_tower_embed import (
    VisionTowerEmbedding,
    build_tower,
    load_tower,
)
from xmodaler.modeling.vision import BeitTower, ClipVitTower, TimmTower
from xmodaler.utils.errors import UserError

pytest.importorskip("timm")

SIZES = {
    "MODEL__VISUAL_EMBED__NAME": "VisionTowerEmbedding",
    "MODEL__VISION__PATCH_SIZE": 8,
    "MODEL__VISION__WIDTH": 16,
    "MODEL__VISION__LAYERS": 2,
    "MODEL__VISION__HEADS": 2,
    "MODEL__VISION__PROJECT": True,
    "DATALOADER__IMAGE_SIZE": 32,
}
SWIN = {
    "MODEL__VISION__PATCH_SIZE": 4,
    "MODEL__VISION__EMBED_DIM": 8,
    "MODEL__VISION__DEPTHS": [1, 1],
    "MODEL__VISION__STAGE_HEADS": [2, 2],
    "MODEL__VISION__WINDOW": 4,
}
TIMM = {"MODEL__VISION__MODEL_NAME": "test_vit", "MODEL__VISION__ARGS": ["img_size", 32]}
CLIP = {"MODEL__VISION__REGION_LAYERS": 1}
TOWERS = {"BeitTower": {}, "ClipVitTower": CLIP, "SwinTower": SWIN, "TimmTower": TIMM}


def pixels(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def beit(**changes):
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 2, "heads": 2}
    tower = BeitTower(**{**sizes, **changes})
    for name, table in tower.named_parameters():
        if name.endswith("_table"):
            torch.nn.init.normal_(table)
    return tower


@pytest.mark.parametrize("name", TOWERS)
@pytest.mark.parametrize("kind", ["updown", "transformer"])
def test_captioners_train_and_decode_on_every_tower(tiny, name, kind):
    model = tiny.model(kind, **{**SIZES, "MODEL__VISION__NAME": name, **TOWERS[name]})
    batch = tiny.batch(images=2, groups=2)
    del batch[kfg.ATT_FEATS], batch[kfg.ATT_MASKS]
    batch[kfg.IMAGES] = pixels(2, 3, 32, 32)
    (loss,) = CrossEntropy()(model.train()(batch)).values()
    loss.backward()
    gradients = [p.grad for p in model.visual_embed.tower.parameters() if p.grad is not None]
    assert sum(float(gradient.abs().sum()) for gradient in gradients) > 0
    with torch.no_grad():
        outputs = model.eval()(batch, use_beam_search=True)
    assert outputs[kfg.G_SENTS_IDS].shape[0] == 2


def test_frames_are_averaged_and_padding_is_not(tiny):
    embed = VisionTowerEmbedding(tower=beit(), frames=4).eval()
    clips = pixels(2, 3, 3, 32, 32)
    alone = embed({kfg.IMAGES: clips[:1, :2]})[kfg.ATT_FEATS]
    masks = torch.tensor([[True, True, False], [True, True, True]])
    padded = embed({kfg.IMAGES: clips, kfg.ATT_MASKS: masks})
    torch.testing.assert_close(padded[kfg.ATT_FEATS][:1], alone)
    assert padded[kfg.ATT_MASKS].shape == (2, 17) and padded[kfg.ATT_MASKS].all()
    with pytest.raises(UserError, match="video of 5 frames"):
        embed({kfg.IMAGES: pixels(1, 5, 3, 32, 32)})


def test_a_picture_is_encoded_once_for_all_its_regions():
    tower, seen = beit().eval(), []
    tower.backbone.blocks[0].register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
    images = pixels(2, 3, 32, 32).float() / 255
    index = torch.tensor([0, 0, 0, 1])
    shown = torch.zeros(4, 17, dtype=torch.bool)
    shown[:, 0] = True
    shown[0, 1:5] = shown[1, 7] = shown[2, 1:] = shown[3, 1:] = True
    regions, tokens = tower.regions(images, index, shown)
    assert seen == [2]
    torch.testing.assert_close(regions.cls[0], tokens[0, 1:5].mean(0))
    torch.testing.assert_close(regions.cls[1], tokens[0, 7])
    # A region of all patches is the picture.
    torch.testing.assert_close(regions.dense()[2:], tokens)


def test_clip_regions_do_not_see_other_patches():
    torch.manual_seed(0)
    tower = ClipVitTower(
        image_size=32, patch_size=8, width=16, layers=2, heads=2, inner_width=32, region_layers=2
    ).eval()
    images = torch.rand(1, 3, 32, 32)
    shown = torch.zeros(1, 17, dtype=torch.bool)
    shown[0, :2] = True
    changed = images.clone()
    changed[..., 16:] = 0  # patches that the region does not hold
    index = torch.tensor([0])
    (before, full), (after, full_after) = (
        tower.regions(x, index, shown) for x in (images, changed)
    )
    torch.testing.assert_close(before.cls, after.cls)
    assert not torch.allclose(full[:, 0], full_after[:, 0])


@pytest.mark.parametrize(
    "make", [beit, lambda: TimmTower(name="test_vit", img_size=32, image_size=32)]
)
def test_recomputing_activations_changes_no_gradient(make):
    images = torch.rand(2, 3, 32, 32)
    gradients = []
    for recompute in (False, True):
        torch.manual_seed(0)
        tower = make().eval()
        tower.set_grad_checkpointing(recompute)
        tower(images).pow(2).sum().backward()
        gradients.append([p.grad for p in tower.parameters() if p.grad is not None])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_weights_of_another_picture_size_are_resized(tmp_path):
    small, large = beit(), beit(image_size=48)
    torch.save(small.backbone.state_dict(), tmp_path / "tower.pth")
    load_tower(large, str(tmp_path / "tower.pth"))
    torch.testing.assert_close(large.backbone.cls_token, small.backbone.cls_token)
    assert large(torch.rand(1, 3, 48, 48)).isfinite().all()
    torch.save({"cls_token": torch.zeros(1, 1, 16)}, tmp_path / "poor.pth")
    with pytest.raises(UserError, match="weights are missing"):
        load_tower(large, str(tmp_path / "poor.pth"))


def test_weights_of_the_transformers_library_load(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=32, patch_size=8,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = transformers.CLIPVisionModel(config).eval()
    torch.save(theirs.state_dict(), tmp_path / "clip.pth")
    tower = ClipVitTower(
        image_size=32, patch_size=8, width=16, layers=2, heads=2, inner_width=32, region_layers=1
    ).eval()
    load_tower(tower, str(tmp_path / "clip.pth"))
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        expected = theirs(images).last_hidden_state
        norm = tower.backbone.norm
        torch.testing.assert_close(tower(images), norm(expected), atol=1e-5, rtol=1e-5)


def test_resizing_keeps_what_fits():
    table = torch.randn(7 * 7 + 3, 2)
    assert resize_relative_table(table, 7) is table
    assert torch.equal(resize_relative_table(table, 9)[-3:], table[-3:])
    constant = torch.ones(5 * 5 + 3, 1)
    torch.testing.assert_close(resize_relative_table(constant, 11)[:-3], torch.ones(121, 1))
    assert resize_position_rows(torch.randn(17, 4), 36).shape == (37, 4)
    with pytest.raises(UserError, match="squares"):
        resize_position_rows(torch.randn(13, 4), 36)


def test_bad_settings_are_told(tiny):
    node = tiny.model("updown", **SIZES, MODEL__VISION__NAME="BeitTower").visual_embed
    with pytest.raises(UserError, match="built for pictures"):
        node({kfg.IMAGES: pixels(1, 3, 40, 40)})
    with pytest.raises(UserError, match="is missing"):
        node({})
    with pytest.raises(UserError, match="multiple"):
        beit(image_size=30)
    with pytest.raises(UserError, match="REGION_LAYERS"):
        ClipVitTower(image_size=32, patch_size=8, width=16, layers=2, heads=2, region_layers=3)
    with pytest.raises(UserError, match="no timm model"):
        TimmTower(name="beit_nowhere")


def test_an_unknown_tower_is_told(tiny):
    from xmodaler.config import CfgNode

    with pytest.raises(UserError, match="no vision tower"):
        build_tower(CfgNode({"NAME": "BeiTower"}), 32)


@pytest.mark.parametrize("name", ["ClipVitTower", "TimmTower"])
def test_positions_may_begin_as_sines(tiny, name):
    changes = {"MODEL__VISION__NAME": name, **TOWERS[name], "MODEL__VISION__SINE_POSITIONS": True}
    tower = tiny.model("transformer", **{**SIZES, **changes}).visual_embed.tower
    positions = tower.backbone.pos_embed
    patches = tower.backbone.patch_embed.num_patches
    rows = positions[0, -patches:]
    assert positions.requires_grad and not positions[0, :-patches].any()
    # Half the width tells the row, half the column, by pairs on the unit circle.
    assert torch.allclose(rows.square().sum(1), torch.tensor(rows.shape[1] / 2))
    assert len(rows.unique(dim=0)) == patches


def test_positions_of_other_towers_cannot_begin_as_sines(tiny):
    with pytest.raises(UserError, match="BeitTower is not such a tower"):
        tiny.model("transformer", **SIZES, MODEL__VISION__SINE_POSITIONS=True)
