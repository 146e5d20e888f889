"""Pretrained text models of Hugging Face ``transformers`` as weights of this package.

A family of models is a row of :data:`FAMILIES`: how its parameters are called here, which of them
files may leave out, and which tables may have another number of rows here.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from xmodaler.utils.errors import UserError, did_you_mean
from xmodaler.utils.hub import NotOnHubError, hub_files

from .rename import RENAME_TABLES, RenameRules, register_rename_table, rename_keys

logger = logging.getLogger(__name__)

PREFIX = "transformers:"
"""What stands before a name of the hub (or a folder) in ``MODEL.WEIGHTS``."""
ROW_TABLES = "row_tables"
"""Entry of a read checkpoint: names of tables whose number of rows need not agree."""

_CONFIG = "config.json"
_FILES = ("model.safetensors", "pytorch_model.bin")
_INDEXES = tuple(f"{name}.index.json" for name in _FILES)


@dataclass(frozen=True)
class Family:
    """How a kind of text model is read.

    Attributes:
        marker: Expression of a parameter name that only files of this kind have.
        rules: Renames, as for :func:`register_rename_table`.
        copies: Name here -> the name whose values it takes where the file leaves it out, because
            the two are one tensor there.
        row_tables: Names here of embeddings that may have more or fewer rows than the file.
    """

    marker: str
    rules: RenameRules
    copies: Mapping[str, str] = field(default_factory=dict)
    row_tables: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "bert": Family(
        marker=r"^(bert\.)?embeddings\.word_embeddings\.weight$",
        rules=[
            (r"\bLayerNorm\.gamma$", "LayerNorm.weight"),
            (r"\bLayerNorm\.beta$", "LayerNorm.bias"),
            (r"^bert\.", ""),
            (r"^embeddings\.position_ids$", None),
            (r"^cls\.seq_relationship\.", None),
            (r"^embeddings\.word_embeddings\.", "token_embed.embeddings."),
            (
                r"^embeddings\.position_embeddings\.",
                "token_embed.embeddings_pos.position_embeddings.",
            ),
            (r"^embeddings\.token_type_embeddings\.", "token_embed.embeddings_token_type."),
            (r"^embeddings\.LayerNorm\.", "token_embed.embeddings_norm."),
            (r"^encoder\.layer\.", "encoder.layers."),
            (r"^pooler\.dense\.", "itm_predictor.pooler.dense."),
            (r"^cls\.predictions\.", "predictor."),
        ],
        copies={
            "predictor.decoder.weight": "token_embed.embeddings.weight",
            "predictor.decoder.bias": "predictor.bias",
        },
        row_tables=(
            "token_embed.embeddings_pos.position_embeddings.weight",
            "token_embed.embeddings_token_type.weight",
        ),
    ),
}


def table_name(family: str) -> str:
    """The name of a family's rename table in :data:`RENAME_TABLES`."""
    return f"transformers-{family}"


for _name, _family in FAMILIES.items():
    if table_name(_name) not in RENAME_TABLES:
        register_rename_table(table_name(_name), _family.rules)


def family_of(state_dict: Mapping[str, Any]) -> str | None:
    """The family whose names a state dict has, or None."""
    for name, family in FAMILIES.items():
        if any(re.search(family.marker, key) for key in state_dict):
            return name
    return None


def translate(state_dict: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The checkpoint that the parameters of a family stand for.

    Args:
        state_dict: Parameters under the names of ``transformers``.
        name: The family.

    Returns:
        ``model``, the parameters under the names of this package, and :data:`ROW_TABLES`.
    """
    family = FAMILIES[name]
    renamed = rename_keys(state_dict, table_name(name))
    has_word_head = any(key.startswith("predictor.") for key in renamed)
    for key, source in family.copies.items():
        if has_word_head and key not in renamed and source in renamed:
            renamed[key] = renamed[source]
    return {"model": renamed, ROW_TABLES: family.row_tables}


def is_folder_of_transformers(path: str) -> bool:
    """Whether a local folder holds a model of ``transformers``."""
    return os.path.isfile(os.path.join(path, _CONFIG))


def weight_files(name: str, of_any_type: bool = False) -> list[str]:
    """The weight files of a folder, or of a model of the hub.

    Args:
        name: A folder that ``save_pretrained`` wrote, or a name of the hub.
        of_any_type: Whether models of no known family are fine.

    Raises:
        UserError: There are none, or the model is of no known family.
    """
    folder = name if os.path.isdir(name) else _from_hub(name)
    if not of_any_type:
        _check_family(folder, name)
    for file, index in zip(_FILES, _INDEXES, strict=True):
        path = os.path.join(folder, file)
        if os.path.isfile(path):
            return [path]
        parts = _json(os.path.join(folder, index)).get("weight_map", {})
        if parts:
            return [os.path.join(folder, part) for part in sorted(set(parts.values()))]
    raise UserError(f"'{name}' holds no weights; one of {', '.join(_FILES)} is expected in it.")


def fit_rows(
    state_dict: dict[str, Any], own: Mapping[str, torch.Tensor], tables: tuple[str, ...]
) -> None:
    """Give tables of a file the number of rows that the model has, in place.

    Rows that the file lacks keep the model's values, rows that the model lacks are left out.

    Args:
        state_dict: What was read.
        own: The model's state dict.
        tables: Names of the tables.
    """
    for key in tables:
        rows, mine = state_dict.get(key), own.get(key)
        if rows is None or mine is None or rows.shape[1:] != mine.shape[1:]:
            continue
        common = min(len(rows), len(mine))
        if len(rows) == len(mine):
            continue
        fitted = mine.detach().clone()
        fitted[:common] = rows[:common]
        state_dict[key] = fitted
        logger.info("%s: took %d of %d rows, the model has %d", key, common, len(rows), len(mine))


def _from_hub(name: str) -> str:
    try:
        return hub_files(name, [_CONFIG, _FILES[0], _INDEXES[0], "model-*.safetensors"])
    except NotOnHubError as error:
        raise UserError(
            f"'{PREFIX}{name}' (MODEL.WEIGHTS) is neither a folder here nor to be had from the "
            f"Hugging Face hub ({error}); name a folder with {_CONFIG} and {_FILES[0]}, or begin "
            "without pretrained weights: MODEL.WEIGHTS ''"
        ) from None


def _check_family(folder: str, name: str) -> None:
    kind = _json(os.path.join(folder, _CONFIG)).get("model_type")
    if kind not in FAMILIES:
        raise UserError(
            f"'{name}' is a model of the type '{kind}'{did_you_mean(str(kind), FAMILIES)}; weights "
            f"of {', '.join(FAMILIES)} can be read."
        )


def _json(path: str) -> dict[str, Any]:
    if not os.path.isfile(path):
        return {}
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise UserError(f"'{path}' is no JSON file that can be read ({error}).") from error
    return content if isinstance(content, dict) else {}
