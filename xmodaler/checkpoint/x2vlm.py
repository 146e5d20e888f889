"""Released X²-VLM and CCLM checkpoints under the names of this package."""

import re
from collections.abc import Mapping

from torch import Tensor, nn

from xmodaler.utils.errors import UserError

from .files import load_as_written
from .vision_towers import translate_tower

__all__ = [
    "our_name",
    "start_decoder",
    "start_text",
    "text_from_hub",
    "translate_x2vlm",
    "without_text_tower",
]

State = dict[str, Tensor]

TOWER = "visual_embed.tower.backbone."
DROPPED = re.compile(r"(^|\.)(position_ids|relative_position_index|attn_mask|one_hot)$")
"""Buffers that carry no information."""

EMBEDDINGS = {
    "word_embeddings.": "embeddings.",
    "position_embeddings.": "embeddings_pos.position_embeddings.",
    "token_type_embeddings.": "embeddings_token_type.",
    "LayerNorm.": "embeddings_norm.",
}
PARTS = {"attention.": "self_attn.", "crossattention.": "x_att."}
"""Blocks of a layer that also attends to something else."""

RULES = (
    (r"^absolute_frame_pos_embed$", "visual_embed.frame_positions"),
    (r"^temp$", "contrast.temperature"),
    (r"^(vision_proj|text_proj)\.", r"contrast.\1."),
    (r"^mlm_head\.predictions\.", "predictor."),
    (r"^text_encoder\.cls\.predictions\.", "predictor."),
    (r"^text_decoder\.cls\.predictions\.", "text_decoder.head."),
    (r"^text_decoder\.bert\.embeddings\.", "text_decoder.embed."),
    (r"^text_encoder\.(bert\.|roberta\.)?embeddings\.", "token_embed."),
)
KEYS_VALUES = ("x_att.self.key.", "x_att.self.value.")
"""What turns tokens of pictures into keys and values."""

TEXT_LAYER = re.compile(r"^text_encoder\.(?:bert\.|roberta\.)?encoder\.layer\.(\d+)\.(.*)$")
CROSS_LAYER = re.compile(r"^cross_encoder\.(?:bert\.)?encoder\.layer\.(\d+)\.(.*)$")
DECODER_LAYER = re.compile(r"^text_decoder\.bert\.encoder\.layer\.(\d+)\.(.*)$")


def our_name(name: str, text_layers: int) -> str | None:
    """Our name of a released parameter, or None for a buffer that is left out.

    Args:
        name: For example ``text_encoder.bert.encoder.layer.12.crossattention.self.key.weight``.
        text_layers: How many layers of ``text_encoder`` are the text tower; those above fuse.
    """
    if DROPPED.search(name):
        return None
    if name.startswith("vision_encoder."):
        return TOWER + name.removeprefix("vision_encoder.")
    found = TEXT_LAYER.match(name)
    if found:
        number, rest = int(found[1]), found[2]
        if number < text_layers:
            return f"encoder.text_layers.{number}.{rest}"
        return f"encoder.fusion_layers.{number - text_layers}.{_fusion_part(rest)}"
    found = CROSS_LAYER.match(name)
    if found:
        return f"encoder.fusion_layers.{found[1]}.{_fusion_part(found[2])}"
    found = DECODER_LAYER.match(name)
    if found:
        return f"text_decoder.layers.{found[1]}.{_fusion_part(found[2])}"
    for pattern, replacement in RULES:
        renamed, count = re.subn(pattern, replacement, name)
        if count:
            return _embedding_part(renamed)
    return name


def translate_x2vlm(
    state: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    text_layers: int,
    tower: str = "BeitTower",
) -> State:
    """Bring released weights to our names, and their tables to the picture size of ``target``.

    Args:
        state: Weights of a released checkpoint.
        target: ``model.state_dict()`` of the model that they are for.
        text_layers: Number of layers of the text tower.
        tower: Class of the vision tower, which decides how its weights are translated.

    Returns:
        Weights under our names; what the model does not have is passed on for the report.
    """
    renamed = {
        ours: value
        for name, value in state.items()
        if (ours := our_name(name, text_layers)) is not None
    }
    vision = {
        name.removeprefix(TOWER): renamed.pop(name) for name in list(renamed) if _is_tower(name)
    }
    places = {name.removeprefix(TOWER): value for name, value in target.items() if _is_tower(name)}
    translated = translate_tower(tower, vision, places)
    renamed.update({TOWER + name: value for name, value in translated.items()})
    frames = "visual_embed.frame_positions"
    if frames in renamed and frames in target:
        renamed[frames] = _fit_frames(renamed[frames], target[frames])
    return renamed


def _is_tower(name: str) -> bool:
    return name.startswith(TOWER)


def _fusion_part(rest: str) -> str:
    for theirs, ours in PARTS.items():
        if rest.startswith(theirs):
            return ours + rest.removeprefix(theirs)
    return rest


def _embedding_part(name: str) -> str:
    for theirs, ours in EMBEDDINGS.items():
        for owner in ("token_embed.", "text_decoder.embed."):
            if name.startswith(owner + theirs):
                return owner + ours + name.removeprefix(owner + theirs)
    return name


def _fit_frames(value: Tensor, target: Tensor) -> Tensor:
    """The positions of the frames that both know; others stay as they were initialised."""
    if value.shape == target.shape:
        return value
    fitted = target.clone()
    known = min(value.shape[1], target.shape[1])
    fitted[:, :known] = value[:, :known]
    return fitted


def start_decoder(state: Mapping[str, Tensor], layers: int, words: bool = True) -> State:
    """Let the decoder of answers start from the fusion layers.

    Args:
        state: Weights of a pre-trained model under our names.
        layers: Number of layers of the decoder: as many as fuse, or half of them, which then
            start from every other one.
        words: Whether its embedding and word head start from those of the pre-trained model.

    Returns:
        The weights, with those of the decoder unless they are there already; keys and values of
        pictures serve those of questions only where both are equally wide.
    """
    started = dict(state)
    if any(name.startswith("text_decoder.") for name in state):
        return started
    fusing = sorted({int(name.split(".")[2]) for name in state if _is_fusion(name)})
    step = max(1, len(fusing) // max(layers, 1))
    other_width = any(
        value.dim() == 2 and value.shape[0] != value.shape[1]
        for name, value in state.items()
        if _is_fusion(name) and name.endswith("x_att.self.key.weight")
    )
    chosen = {number: place for place, number in enumerate(fusing[step - 1 :: step][:layers])}
    for name, value in state.items():
        if _is_fusion(name):
            number, rest = name.removeprefix("encoder.fusion_layers.").split(".", 1)
            if int(number) in chosen and not (other_width and rest.startswith(KEYS_VALUES)):
                started[f"text_decoder.layers.{chosen[int(number)]}.{rest}"] = value
        elif words and name.startswith("token_embed."):
            started["text_decoder.embed." + name.removeprefix("token_embed.")] = value
        elif words and name.startswith("predictor."):
            started["text_decoder.head." + name.removeprefix("predictor.")] = value
    return started


def without_text_tower(state: Mapping[str, Tensor]) -> State:
    """The weights that stay when the text tower is exchanged for another one.

    Towers of pictures, fusion layers, projections and heads stay; of the word head only what
    comes before the matrix over words.
    """
    gone = ("encoder.text_layers.", "token_embed.", "predictor.decoder.")
    return {
        name: value
        for name, value in state.items()
        if not name.startswith(gone) and name != "predictor.bias"
    }


def text_from_hub(state: Mapping[str, Tensor], text_layers: int, fusion_layers: int = 0) -> State:
    """Start the text side from a BERT, RoBERTa or XLM-R of the model hub.

    The text layers start from those of the hub in order, or from every other one where the hub
    has twice as many; fusion layers start from the last ones, without their attention to pictures.

    Args:
        state: Weights under the names of the transformers library, ``bert.``, ``roberta.`` or no
            prefix.
        text_layers: Number of text layers.
        fusion_layers: Number of fusion layers to start.

    Returns:
        Weights under our names.
    """
    text: State = {}
    for name, value in state.items():
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        name = re.sub(r"^(bert|roberta)\.", "", name)
        if name.startswith("cls.predictions."):
            text["predictor." + name.removeprefix("cls.predictions.")] = value
        elif name.startswith("embeddings.") and not DROPPED.search(name):
            text[_embedding_part("token_embed." + name.removeprefix("embeddings."))] = value
    layers = _hub_layers(state)
    sources = sorted(layers)
    if len(sources) == 2 * text_layers:
        sources = sources[1::2]
    sources = sources[:text_layers]
    for place, source in enumerate(sources):
        for rest, value in layers[source].items():
            text[f"encoder.text_layers.{place}.{rest}"] = value
    for place, source in enumerate(sources[len(sources) - fusion_layers :]):
        for rest, value in layers[source].items():
            text[f"encoder.fusion_layers.{place}.{_fusion_part(rest)}"] = value
    return text


def start_text(model: nn.Module, path: str, fusion_layers: int = 0) -> None:
    """Let the text tower of a model start from a text model of the hub, a folder or a file.

    Args:
        model: Of X²-VLM.
        path: Where the text model is.
        fusion_layers: As for :func:`text_from_hub`. Without fusion layers the word head, too,
            stays as it is.

    Raises:
        UserError: A weight of the text tower is missing there, or has another shape.
    """
    own = model.state_dict()
    wanted = [name for name in own if name.startswith(("encoder.text_layers.", "token_embed."))]
    layers = 1 + max(int(n.split(".")[2]) for n in wanted if n.startswith("encoder."))
    found = text_from_hub(load_as_written(path), layers, fusion_layers)
    lacking = [n for n in wanted if n not in found or found[n].shape != own[n].shape]
    if lacking:
        raise UserError(
            f"MODEL.X2VLM.TEXT_WEIGHTS '{path}' does not fit the text tower: {len(lacking)} of its "
            f"{len(wanted)} weights are missing or of another shape, '{lacking[0]}' first"
        )
    fitting = {
        name: value
        for name, value in found.items()
        if name in own
        and value.shape == own[name].shape
        and (fusion_layers or not name.startswith("predictor."))
    }
    model.load_state_dict(fitting, strict=False)


def _hub_layers(state: Mapping[str, Tensor]) -> dict[int, State]:
    layers: dict[int, State] = {}
    for name, value in state.items():
        found = re.search(r"(?:^|\.)encoder\.layer\.(\d+)\.(.*)$", name)
        if found:
            rest = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", found[2]))
            layers.setdefault(int(found[1]), {})[rest] = value
    return layers


def _is_fusion(name: str) -> bool:
    return name.startswith("encoder.fusion_layers.")
