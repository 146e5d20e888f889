"""Released checkpoints: every key has its place, and every parameter its source."""

from pathlib import Path

import pytest
import torch

from xmodaler.checkpoint.vision_towers import TABLE
from xmodaler.checkpoint.x2vlm import (
    TOWER,
    our_name,
    start_decoder,
    text_from_hub,
    translate_x2vlm,
    without_text_tower,
)
from xmodaler.config import get_cfg
from xmodaler.modeling import add_config
from xmodaler.modeling.meta_arch.build import META_ARCH_REGISTRY

CONFIGS = Path(__file__).resolve().parents[3] / "configs" / "x2vlm"
ARCHITECTURES = {
    "pretrain": "X2VLMPretrain",
    "retrieval": "X2VLMRetrieval",
    "vqa": "X2VLMVQA",
    "nlvr2": "X2VLMReasoning",
    "marvl": "X2VLMReasoning",
    "grounding": "X2VLMGrounding",
    "msrvtt": "X2VLMClassifier",
    "msvd": "X2VLMClassifier",
    "xvnli": "X2VLMClassifier",
    "captioning": "X2VLMCaptioner",
}
WORD_HEADS = ("X2VLMPretrain", "X2VLMCaptioner")
SIZES = {"base", "large"}


def architecture(name):
    found = [value for task, value in ARCHITECTURES.items() if task in name]
    return found[0] if found else "X2VLMPretrain"


def full_size(name, keys):
    """Our model of that name on no device, with the sizes that the key list tells."""
    family = "cclm" if name.startswith("cclm") else "x2vlm"
    size = next(part for part in name.split("-") if part in SIZES)
    path = str(CONFIGS / f"{family}_{size}.yaml")
    kind = architecture(name)
    word_head = "BertPredictionHead" if kind in WORD_HEADS else ""
    cfg = get_cfg()
    given = cfg.load_from_file_tmp(path)
    given.MODEL.META_ARCHITECTURE, given.MODEL.PREDICTOR = kind, word_head
    add_config(cfg, given)
    cfg.merge_from_file(path)
    cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.PREDICTOR = kind, word_head
    shapes = keys["state_dict"]
    frames = shapes.get("absolute_frame_pos_embed")
    labels = shapes.get("cls_head.3.bias")
    cfg.merge_from_list(
        [
            *("DATALOADER.IMAGE_SIZE", keys["image_res"]),
            *("MODEL.VISION.FRAME_POSITIONS", frames[1] if frames else 0),
            *("MODEL.X2VLM.NUM_LABELS", labels[0] if labels else 2),
        ]
    )
    with torch.device("meta"):
        return META_ARCH_REGISTRY.get(kind)(cfg), cfg


def released_models(load_fixture):
    import json

    folder = load_fixture("load-maps").folder.parent
    path = folder / "keys_full.json"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return json.loads(path.read_text())


@pytest.mark.parametrize("family", ["x2vlm", "cclm"])
def test_every_released_key_has_its_place(load_fixture, family):
    models = released_models(load_fixture)
    names = [name for name in models if name.startswith("cclm") == (family == "cclm")]
    assert names
    for name in names:
        keys = models[name]
        model, cfg = full_size(name, keys)
        ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        layers = cfg.MODEL.BERT.NUM_HIDDEN_LAYERS
        found = {our_name(key, layers): tuple(shape) for key, shape in keys["state_dict"].items()}
        dropped = [key for key in keys["state_dict"] if our_name(key, layers) is None]
        assert set(dropped) <= set(keys["buffers"]), name
        found.pop(None, None)
        assert found == ours, name
        parameters = sum(parameter.numel() for parameter in model.parameters())
        assert parameters == keys["n_parameters"], name


def listed(source):
    """One source or several that are tied."""
    return source if isinstance(source, list) else [source]


def numbered(case):
    """A checkpoint in which every released tensor is a number of its own, and its sources."""
    names = {name for source in case["map"].values() for name in listed(source)}
    names |= {f"ckpt:{name}" for name in case.get("source_keys_without_effect", [])}
    names = sorted(name.removeprefix("ckpt:") for name in names if name.startswith("ckpt:"))
    return {name: torch.tensor(float(number)) for number, name in enumerate(names)}


TASKS = ["retrieval", "grounding", "nlvr2", "captioning", "vqa", "vqa half"]
WIDTHS = ("crossattention.self.key", "crossattention.self.value")
"""Left as they are where states of texts are not as wide as tokens of pictures."""


@pytest.mark.parametrize("task", TASKS)
def test_every_parameter_has_its_source(load_fixture, task):
    cases = load_fixture("load-maps").json("load_maps.json")
    half = task.endswith("half")
    (case,) = (
        value
        for name, value in cases.items()
        if name.split(" ")[0] == task.split(" ")[0] and ("half" in name) == half
    )
    state, text_layers = numbered(case), 2
    found = translate_x2vlm(state, {}, text_layers)
    decoders = [int(key.split(".")[4]) for key in case["map"] if "text_decoder.bert.encoder" in key]
    if decoders:
        found = start_decoder(found, max(decoders) + 1)
    for key, source in case["map"].items():
        ours = our_name(key, text_layers)
        sources = listed(source)
        if ours is None or not sources[0].startswith("ckpt:"):
            assert ours not in found or key.rpartition(".")[0].endswith(WIDTHS), key
            continue
        values = [float(state[name.removeprefix("ckpt:")]) for name in sources]
        tied = {"text_decoder.head.decoder.weight", "predictor.decoder.weight"}
        assert float(found[ours]) in values or ours in tied, key


def test_text_layers_start_from_the_hub(load_fixture):
    for name, case in load_fixture("text-init").json("text_init.json").items():
        layers = {
            int(key): int(value) for key, value in case["target_layer_from_hub_layer"].items()
        }
        number, fusion = len(layers), 6 if len(layers) == 18 else 0
        depth = max(layers.values()) + 1
        hub = {
            f"bert.encoder.layer.{layer}.output.dense.weight": torch.tensor(layer)
            for layer in range(depth)
        }
        found = text_from_hub(hub, number - fusion, fusion)
        for target, source in layers.items():
            ours = our_name(
                f"text_encoder.bert.encoder.layer.{target}.output.dense.weight", number - fusion
            )
            assert int(found[ours]) == source, (name, target)


def test_the_text_tower_can_be_exchanged():
    state = {
        "encoder.text_layers.0.output.dense.bias": torch.zeros(1),
        "encoder.fusion_layers.0.output.dense.bias": torch.zeros(1),
        "token_embed.embeddings.weight": torch.zeros(1),
        "predictor.decoder.weight": torch.zeros(1),
        "predictor.bias": torch.zeros(1),
        "predictor.transform.dense.bias": torch.zeros(1),
        "contrast.temperature": torch.zeros(1),
    }
    assert set(without_text_tower(state)) == {
        "encoder.fusion_layers.0.output.dense.bias",
        "predictor.transform.dense.bias",
        "contrast.temperature",
    }


def test_tables_and_frames_are_fitted():
    table = f"vision_encoder.blocks.0.attn.{TABLE}"
    state = {table: torch.randn(52, 2), "absolute_frame_pos_embed": torch.ones(1, 3, 1, 4)}
    target = {
        f"{TOWER}blocks.0.attn.{TABLE}": torch.zeros(124, 2),
        "visual_embed.frame_positions": torch.zeros(1, 4, 1, 4),
    }
    found = translate_x2vlm(state, target, 2)
    assert found[f"{TOWER}blocks.0.attn.{TABLE}"].shape == (124, 2)
    assert found["visual_embed.frame_positions"][0, :, 0, 0].tolist() == [1, 1, 1, 0]


def test_keys_of_another_width_do_not_start_the_decoder():
    layer = "encoder.fusion_layers.0.x_att.self"
    state = {f"{layer}.key.bias": torch.zeros(4), f"{layer}.query.weight": torch.zeros(4, 4)}
    for width, kept in ((4, True), (6, False)):
        found = start_decoder({**state, f"{layer}.key.weight": torch.zeros(4, width)}, 1)
        assert ("text_decoder.layers.0.x_att.self.key.weight" in found) is kept
        assert ("text_decoder.layers.0.x_att.self.key.bias" in found) is kept
        assert "text_decoder.layers.0.x_att.self.query.weight" in found
