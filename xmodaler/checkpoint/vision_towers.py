"""Weights of vision towers as other projects name them, for the towers of this package.

BEiT-2, CLIP and Swin files, and the towers inside of X²-VLM checkpoints, come with their own
names, with index buffers that carry no information, and with positions for one size of picture.
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from xmodaler.functional.func_resize import (
    EXTRA_ROWS,
    resize_grid_table,
    resize_position_rows,
    resize_relative_table,
)
from xmodaler.utils.errors import UserError

from .rename import rename_keys

__all__ = ["TOWER_KINDS", "translate_tower"]

State = dict[str, Tensor]

TABLE = "relative_position_bias_table"

BEIT_RULES = [
    (r"\.relative_position_index$", None),
    (r"^(head|norm|lm_head|mask_token|decoder)\b.*", None),
]
CLIP_RULES = [
    (r"^vision_model\.", ""),
    (r"(^|\.)position_ids$", None),
    (r"^(text_model|text_projection|visual_projection|logit_scale)\b.*", None),
    (r"^embeddings\.class_embedding$", "class_embedding"),
    (r"^embeddings\.patch_embedding\.", "patch_embed."),
    (r"^embeddings\.position_embedding\.", "pos_embed."),
    (r"^class_embedding$", "cls_token"),
    (r"^patch_embed\.weight$", "patch_embed.proj.weight"),
    (r"^pos_embed\.weight$", "pos_embed"),
    (r"^pre_layrnorm\.", "norm_pre."),
    (r"^post_layernorm\.", "norm."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.layer_norm([12])\.", r".norm\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.([qkv])_proj\.", r".attn.\1."),
]
SWIN_RULES = [
    (r"\.relative_position_index$", None),
    (r"\.attn_mask$", None),
    (r"^head\b.*", None),
]

TOWER_KINDS = ("BeitTower", "ClipVitTower", "SwinTower")


def translate_tower(kind: str, state: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> State:
    """Bring the weights of a tower to the names and sizes of ours.

    Args:
        kind: Class of the tower, one of :data:`TOWER_KINDS`; others keep their names.
        state: Weights under the names of the project that made them, or under ours.
        target: The tower's ``backbone.state_dict()``.

    Returns:
        Weights under the names of ``target``; tables and positions are resized to its shapes.
        Names unknown to ``target`` are passed on, so that a report can list them.

    Raises:
        UserError: Two weights of the file are meant for the same one.
    """
    if kind == "BeitTower":
        renamed = _share_table(rename_keys(state, BEIT_RULES), target)
    elif kind == "ClipVitTower":
        renamed = _fuse_projections(rename_keys(state, CLIP_RULES))
    elif kind == "SwinTower":
        renamed = _move_downsampling(rename_keys(state, SWIN_RULES), target)
    else:
        renamed = dict(state)
    return {key: _fit(key, value, target.get(key)) for key, value in renamed.items()}


def _share_table(state: State, target: Mapping[str, Tensor]) -> State:
    """One table for all blocks becomes a copy for each."""
    shared = state.pop(f"rel_pos_bias.{TABLE}", None)
    if shared is not None:
        state.update({key: shared for key in target if key.endswith(TABLE)})
    return state


def _fuse_projections(state: State) -> State:
    """Query, key and value become one matrix."""
    fused = {key: value for key, value in state.items() if not re.search(r"\.attn\.[qkv]\.", key)}
    for key, query in state.items():
        if ".attn.q." not in key:
            continue
        others = [key.replace(".attn.q.", f".attn.{part}.") for part in "kv"]
        if any(other not in state for other in others):
            raise UserError(f"the weights hold '{key}' but not '{others[0]}' and '{others[1]}'")
        parts = [query, *(state[other] for other in others)]
        fused[key.replace(".attn.q.", ".attn.qkv.")] = torch.cat(parts)
    return fused


def _move_downsampling(state: State, target: Mapping[str, Tensor]) -> State:
    """What halves the map ends a stage in released files and begins the next one in timm."""
    if any(re.match(r"layers\.0\.downsample\.", key) for key in target):
        return state
    if not any(re.match(r"layers\.0\.downsample\.", key) for key in state):
        return state
    return {
        re.sub(
            r"^layers\.(\d+)\.downsample\.",
            lambda found: f"layers.{int(found[1]) + 1}.downsample.",
            key,
        ): value
        for key, value in state.items()
    }


def _fit(key: str, value: Tensor, target: Tensor | None) -> Tensor:
    """``value`` resized to the shape of ``target`` where that is a matter of picture size."""
    if target is None or value.shape == target.shape:
        return value
    if key == "cls_token":
        return value.reshape(target.shape)
    if key == "pos_embed" and value.shape[-1] == target.shape[-1]:
        rows = value.reshape(-1, value.shape[-1])
        return resize_position_rows(rows, target.shape[-2] - 1).unsqueeze(0)
    if key.endswith(TABLE) and value.shape[1:] == target.shape[1:]:
        side = math.isqrt(target.shape[0] - EXTRA_ROWS)
        if side * side + EXTRA_ROWS == target.shape[0] and side % 2:
            return resize_relative_table(value, side)
        return resize_grid_table(value, math.isqrt(target.shape[0]))
    return value
