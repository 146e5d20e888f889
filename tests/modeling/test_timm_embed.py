"""Pictures become grid tokens through a timm backbone, in every captioner."""

import pytest
import torch

from xmodaler.config import kfg
from xmodaler.losses import CrossEntropy
from xmodaler.modeling.embedding import TimmEmbedding
from xmodaler.modeling.embedding.timm_embed import build_backbone, cell_boxes
from xmodaler.utils.errors import UserError

pytest.importorskip("timm")

PIXELS = {"MODEL__VISUAL_EMBED__NAME": "TimmEmbedding", "MODEL__TIMM__MODEL_NAME": "test_resnet"}


def pixel_batch(tiny, images=2, groups=2, size=64):
    batch = tiny.batch(images=images, groups=groups)
    del batch[kfg.ATT_FEATS], batch[kfg.ATT_MASKS]
    generator = torch.Generator().manual_seed(1)
    shape = (images, 3, size, size)
    batch[kfg.IMAGES] = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return batch


@pytest.mark.parametrize("kind", ["updown", "transformer", "grid"])
@pytest.mark.parametrize("frozen", [True, False])
def test_every_captioner_trains_from_pixels(tiny, kind, frozen):
    changes = {**PIXELS, "MODEL__TIMM__FROZEN": frozen, "MODEL__TIMM__OUT_INDEX": 2}
    if kind == "grid":
        kind = "transformer"
        changes["MODEL__ENCODER"] = "GTransformerEncoder"
        changes["MODEL__TIMM__GLOBAL_TOKEN"] = True
    model = tiny.model(kind, **changes)
    batch = pixel_batch(tiny)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    (loss,) = CrossEntropy()(model(batch)).values()
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    backbone = {name for name in before if name.startswith("visual_embed.backbone.")}
    assert bool(changed & backbone) is not frozen  # running statistics count too
    assert "visual_embed.embeddings.weight" in changed
    with torch.no_grad():
        outputs = model.eval()(batch, use_beam_search=False)
    assert outputs[kfg.G_SENTS_IDS].shape[0] == 2


def test_a_picture_is_seen_once_however_many_captions(tiny):
    model = tiny.model("updown", **PIXELS)
    seen = []
    model.visual_embed.backbone.register_forward_hook(lambda m, i, o: seen.append(i[0].shape[0]))
    model(pixel_batch(tiny, images=2, groups=3))
    assert seen == [2]


def test_bytes_and_floats_and_statistics_of_the_backbone(tiny):
    embedding = tiny.model("updown", **PIXELS).visual_embed.eval()
    assert embedding.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert {"mean", "std"} <= set(embedding.state_dict())
    images = pixel_batch(tiny)[kfg.IMAGES]
    of_bytes = embedding({kfg.IMAGES: images})
    of_floats = embedding({kfg.IMAGES: images.float() / 255})
    torch.testing.assert_close(of_bytes[kfg.ATT_FEATS], of_floats[kfg.ATT_FEATS])
    assert of_bytes[kfg.ATT_FEATS].shape == (2, 4, 16)
    assert of_bytes[kfg.ATT_MASKS].all() and of_bytes[kfg.ATT_MASKS].shape == (2, 4)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext", "test_efficientnet"])
def test_other_families_of_backbones(tiny, name):
    changes = {**PIXELS, "MODEL__TIMM__MODEL_NAME": name, "DATALOADER__IMAGE_SIZE": 64}
    model = tiny.model("updown", **changes)
    feats = model.visual_embed(pixel_batch(tiny))[kfg.ATT_FEATS]
    side = feats.shape[1] ** 0.5
    assert side == int(side) and feats.shape[2] == 16


def test_grid_of_a_channels_last_backbone_keeps_its_layout():
    class Backbone(torch.nn.Module):
        output_fmt = "NHWC"

        class feature_info:
            channels = staticmethod(lambda: [2])

        def forward(self, pixels):
            return [pixels[:, :2].permute(0, 2, 3, 1)]

    embedding = TimmEmbedding(backbone=Backbone(), out_dim=2, mean=(0, 0, 0), std=(1, 1, 1))
    torch.nn.init.eye_(embedding.embeddings.weight)
    torch.nn.init.zeros_(embedding.embeddings.bias)
    pixels = torch.rand(1, 3, 2, 3)
    feats = embedding({kfg.IMAGES: pixels})[kfg.ATT_FEATS]
    torch.testing.assert_close(feats[0], pixels[0, :2].flatten(1).t())


def test_earlier_maps_and_arguments_of_the_backbone():
    backbone = build_backbone("test_resnet", out_index=2, stem_width=16, channels=[32, 64, 96, 128])
    assert backbone(torch.rand(1, 3, 64, 64))[-1].shape == (1, 64, 8, 8)


def test_location_layer_tells_cells_apart(tiny):
    changes = {**PIXELS, "MODEL__VISUAL_EMBED__LOCATION_SIZE": 5}
    embedding = tiny.model("updown", **changes).visual_embed
    assert embedding.embeddings_pos.weight.shape == (16, 5)
    embedding({kfg.IMAGES: torch.zeros(1, 3, 64, 64, dtype=torch.uint8)})
    boxes = cell_boxes(2, 4, torch.device("cpu"))
    torch.testing.assert_close(boxes[1], torch.tensor([0.25, 0.0, 0.5, 0.5, 0.125]))
    torch.testing.assert_close(boxes[-1], torch.tensor([0.75, 0.5, 1.0, 1.0, 0.125]))


def test_global_token_is_in_front(tiny):
    changes = {**PIXELS, "MODEL__TIMM__GLOBAL_TOKEN": True}
    embedding = tiny.model("updown", **changes).visual_embed
    assert embedding(pixel_batch(tiny))[kfg.ATT_FEATS].shape == (2, 5, 16)
    with pytest.raises(UserError, match="GLOBAL_TOKEN True"):
        tiny.model("transformer", MODEL__ENCODER="GTransformerEncoder", **PIXELS)


def test_local_weights_are_loaded_or_refused(tiny, tmp_path):
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(7)
    source = timm.create_model("test_resnet", pretrained=False)
    path = tmp_path / "backbone.safetensors"
    save_file(source.state_dict(), str(path))
    backbone = build_backbone("test_resnet", weights=str(path))
    weight = source.state_dict()["conv1.0.weight"]
    torch.testing.assert_close(backbone.state_dict()["conv1.0.weight"], weight)
    with pytest.raises(UserError, match="holds no weights of 'test_convnext'"):
        build_backbone("test_convnext", weights=str(path))
    with pytest.raises(UserError, match=r"size mismatch for conv1.*check MODEL.TIMM.WEIGHTS") as e:
        build_backbone("resnet10t", weights=str(path))
    assert len(str(e.value)) < 500


def test_mistakes_are_explained(tiny):
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build_backbone("resnett18")
    with pytest.raises(UserError, match="ARGS"):
        build_backbone("test_resnet", no_such_argument=1)
    with pytest.raises(UserError, match="flat list"):
        tiny.model("updown", **PIXELS, MODEL__TIMM__ARGS=["stem_width"])
    model = tiny.model("updown", **PIXELS)
    with pytest.raises(UserError, match="IMAGES is missing"):
        model(tiny.batch())
