"""Configs by name, what is known of released models, and their weights."""

from pathlib import Path

import pytest
import torch

from xmodaler import model_zoo
from xmodaler.checkpoint import save_weights
from xmodaler.config import get_cfg
from xmodaler.model_zoo.layers import adopt_layers
from xmodaler.modeling import build_model
from xmodaler.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["MODEL.VOCAB_SIZE", 30, "MODEL.DECODER_DIM", 16, "MODEL.DEVICE", "cpu"]
SMALL += ["MODEL.TOKEN_EMBED.DIM", 16, "MODEL.TOKEN_EMBED.POSITION_MAX_LEN", 30]
SMALL += ["MODEL.VISUAL_EMBED.IN_DIM", 12, "MODEL.VISUAL_EMBED.OUT_DIM", 16]
SMALL += ["MODEL.BERT.HIDDEN_SIZE", 16, "MODEL.BERT.INTERMEDIATE_SIZE", 24]
SMALL += ["MODEL.BERT.NUM_ATTENTION_HEADS", 2]
LAYERS = ["MODEL.BERT.NUM_HIDDEN_LAYERS", 3, "MODEL.BERT.NUM_GENERATION_LAYERS", 3]
MSRVTT = "video_caption/msrvtt/transformer"
OWN = ("base", "flickr8k", "clip_transformer_test", "daquar", "vqav2")
"""Beginnings of the names of configs that X-modaler did not release."""
UNRELEASED = ("vilbert",)
"""Folders of models that X-modaler did not release."""


def test_every_released_config_is_listed_once():
    listed = [model_zoo.get_entry(name).config for name in model_zoo.list()]
    shipped = {
        path.relative_to(ROOT / "configs").as_posix()
        for task in ("image_caption", "video_caption", "pretrain", "mm_understanding")
        for path in (ROOT / "configs" / task).glob("**/*/*.yaml")
        if not path.name.startswith(OWN) and not path.parts[-2].startswith(UNRELEASED)
    }
    newer = [config for config in listed if config.startswith("x2vlm/")]
    assert sorted(set(listed) - set(newer)) == sorted(shipped)
    assert len(set(listed)) == len(listed)
    assert all((ROOT / "configs" / config).is_file() for config in newer)


@pytest.mark.parametrize("name", model_zoo.list())
def test_every_entry_is_complete(name):
    entry = model_zoo.get_entry(name)
    cfg = model_zoo.get_config(name)
    assert entry.paper.title and entry.dataset and entry.model
    assert bool(entry.scores) == bool(entry.source)
    assert (ROOT / "configs" / entry.shapes).exists()
    if cfg.MODEL.META_ARCHITECTURE == "X2VLMCaptioner":
        assert cfg.MODEL.PREDICTOR and cfg.DECODE_STRATEGY.MAX_LENGTH == 50
    elif entry.task.endswith("captioning"):
        assert cfg.MODEL.DECODER and cfg.MODEL.MAX_SEQ_LEN in (20, 21)
        stage = "CIDEr" if cfg.ENGINE.NAME.startswith("RL") else "cross-entropy"
        assert entry.objective == stage


def test_list_by_task():
    videos = model_zoo.list("video captioning")
    assert len(videos) == 8 and MSRVTT in videos
    assert set(videos) < set(model_zoo.list())


def test_scores_are_those_of_the_documentation():
    scores = {name: model_zoo.get_entry(name).scores for name in model_zoo.list()}
    assert scores["image_caption/xlan"]["CIDEr-D"] == 120.7
    assert scores["image_caption/meshed_memory_rl"]["BLEU@4"] == 39.6
    assert scores["video_caption/msvd/tdconved"]["METEOR"] == 34.1
    assert scores["image_caption/cosnet"] == {}


@pytest.mark.parametrize(
    "name",
    [
        "image_caption/updown",
        "image_caption/updown/updown",
        "image_caption/updown/updown.yaml",
        "configs/image_caption/updown/updown.yaml",
    ],
)
def test_a_config_has_several_names(name):
    expected = ROOT / "configs" / "image_caption" / "updown" / "updown.yaml"
    assert Path(model_zoo.get_config_file(name)) == expected


@pytest.mark.parametrize("name", ["image_caption/updwn", "zoo", "../setup.py", "nothing"])
def test_an_unknown_name_is_said(name):
    with pytest.raises(UserError, match="has no config"):
        model_zoo.get_config_file(name)
    with pytest.raises(UserError, match="has no model"):
        model_zoo.get_entry(name)


def test_near_names_are_suggested():
    with pytest.raises(UserError, match="did you mean 'image_caption/updown'"):
        model_zoo.get_config_file("image_caption/updwn")


def test_overrides_are_merged():
    cfg = model_zoo.get_config("image_caption/updown", ["DECODE_STRATEGY.BEAM_SIZE", 7])
    assert cfg.DECODE_STRATEGY.BEAM_SIZE == 7 and cfg.MODEL.UPDOWN.ATT_EMBED_SIZE == 512


def save_small(tmp_path, opts=()):
    source = build_model(model_zoo.get_config(MSRVTT, [*SMALL, *opts]))
    save_weights(source, tmp_path / "model.pth")
    return source, tmp_path / "model.pth"


def test_weights_by_path(tmp_path):
    source, path = save_small(tmp_path)
    model = model_zoo.get(MSRVTT, path, opts=SMALL)
    assert not model.training
    for name, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name


def test_layers_are_those_of_the_weights(tmp_path, caplog):
    source, path = save_small(tmp_path, LAYERS)
    model = model_zoo.get(MSRVTT, path, opts=SMALL)
    assert model.state_dict().keys() == source.state_dict().keys()
    assert "MODEL.BERT.NUM_HIDDEN_LAYERS is 2" in caplog.text and "with 3" in caplog.text


def test_incomplete_weights_are_refused_with_a_report(tmp_path):
    source, _ = save_small(tmp_path)
    state = source.state_dict()
    del state["predictor.logits.bias"]
    state["predictor.logits.weight"] = torch.zeros(3, 3)
    save_weights(state, tmp_path / "part.safetensors")
    with pytest.raises(UserError, match=r"do not fit the config: 1 of.*\n.*predictor.logits.bias"):
        model_zoo.get(MSRVTT, tmp_path / "part.safetensors", opts=SMALL)


@pytest.mark.parametrize(
    ("encoder", "decoder", "section", "prefix", "key"),
    [
        (
            "LowRankBilinearEncoder",
            "",
            {"BILINEAR": {"ENCODE": {"LAYERS": 1}}},
            "encoder",
            "BILINEAR",
        ),
        (
            "",
            "XLANDecoder",
            {"BILINEAR": {"DECODE": {"LAYERS": 1}}},
            "decoder.attention",
            "BILINEAR",
        ),
        ("TDConvEDEncoder", "", {"TDCONVED": {"ENCODER": {"KERNEL_SIZES": [3]}}}, "encoder", "TDC"),
        ("", "MeshedDecoder", {"MESHEDMEORY": {"DECODER": {"NUM_LAYER": 4}}}, "decoder", "MESHED"),
    ],
)
def test_layers_of_every_family_are_counted(encoder, decoder, section, prefix, key):
    cfg = get_cfg()
    cfg.MODEL.ENCODER, cfg.MODEL.DECODER = encoder, decoder
    cfg.MODEL.set_new_allowed(True)
    cfg.MODEL.merge_from_other_cfg(section)
    changes = adopt_layers(cfg, [f"{prefix}.layers.{i}.weight" for i in (0, 1, 2)])
    ((name, (_, new)),) = changes.items()
    assert key in name and new in (3, [3, 3, 3])
    assert adopt_layers(cfg, [f"{prefix}.layers.{i}.weight" for i in (0, 1, 2)]) == {}


def test_layers_stay_where_the_weights_have_none():
    cfg = get_cfg()
    cfg.MODEL.ENCODER = "TransformerEncoder"
    assert adopt_layers(cfg, ["token_embed.embeddings.weight"]) == {}
