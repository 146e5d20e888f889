"""Declarative tables that turn other projects' parameter names into this package's."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from xmodaler.utils.errors import UserError, did_you_mean

RenameRules = Iterable[tuple[str, str | None]]

RENAME_TABLES: dict[str, list[tuple[re.Pattern[str], str | None]]] = {}


def register_rename_table(name: str, rules: RenameRules) -> None:
    """Add a table that `load(..., rename=name)` can use.

    Args:
        name: The name of the source, for example `"bert"`.
        rules: Pairs of a regular expression and a replacement, applied to every key in order,
            each to the result of the one before, as by `re.sub`. `None` instead of a replacement
            drops the keys that match.

    Raises:
        UserError: The name is taken, or an expression is not valid.
    """
    if name in RENAME_TABLES:
        raise UserError(f"A rename table '{name}' is registered already; choose another name.")
    RENAME_TABLES[name] = _compile(rules, name)


def rename_keys(state_dict: Mapping[str, Any], table: str | RenameRules) -> dict[str, Any]:
    """Return a state dict under new names.

    Args:
        state_dict: Parameter name -> value.
        table: The name of a registered table, or rules as for :func:`register_rename_table`.

    Raises:
        UserError: No such table, or two keys would get the same name.
    """
    if isinstance(table, str):
        if table not in RENAME_TABLES:
            raise UserError(
                f"No rename table '{table}'; there are {', '.join(sorted(RENAME_TABLES))}"
                + did_you_mean(table, RENAME_TABLES)
            )
        rules = RENAME_TABLES[table]
    else:
        rules = _compile(table, "given")
    renamed: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value in state_dict.items():
        new_key = _rename(key, rules)
        if new_key is None:
            continue
        if new_key in renamed:
            raise UserError(
                f"The table renames '{origins[new_key]}' and '{key}' to the same name '{new_key}'."
            )
        renamed[new_key], origins[new_key] = value, key
    return renamed


def _rename(key: str, rules: list[tuple[re.Pattern[str], str | None]]) -> str | None:
    for pattern, replacement in rules:
        if replacement is not None:
            key = pattern.sub(replacement, key)
        elif pattern.search(key):
            return None
    return key


def _compile(rules: RenameRules, name: str) -> list[tuple[re.Pattern[str], str | None]]:
    compiled = []
    for expression, replacement in rules:
        try:
            compiled.append((re.compile(expression), replacement))
        except re.error as error:
            raise UserError(
                f"Rename table '{name}': '{expression}' is no regular expression ({error})."
            ) from error
    return compiled


# BERT's first releases (TensorFlow names) call the parameters of a LayerNorm gamma and beta.
register_rename_table(
    "bert",
    [
        (r"((?:^|\.)\w*[nN]orm\w*)\.gamma$", r"\1.weight"),
        (r"((?:^|\.)\w*[nN]orm\w*)\.beta$", r"\1.bias"),
    ],
)
