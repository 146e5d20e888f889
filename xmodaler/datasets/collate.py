"""From a list of samples to one batch, in the loader's workers.

Visual keys keep one row per image; keys that hold a list per sample (the captions of an image)
are flattened so that the rows of one image are adjacent. ``G = rows // images`` is inferred where
the two meet, so nothing visual is repeated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.config import kfg
from xmodaler.utils.errors import UserError

from .bad_samples import BAD_KEY, take_notes


@dataclass(frozen=True)
class Padding:
    """How the tensors of one key are brought to one shape.

    Attributes:
        value: Fills what is missing, in every dimension that differs.
        mask: Key of the bool mask (rows, longest) that is True where a row has content, or ''.
        width: The last dimension must agree: it is a feature width, not a length.
    """

    value: float
    mask: str = ""
    width: bool = False


PADDINGS: dict[str, Padding] = {
    kfg.ATT_FEATS: Padding(0, mask=kfg.ATT_MASKS, width=True),
    kfg.ATT_FEATS_WO_MASK: Padding(0, width=True),
    kfg.ATT_FEATS_LOC: Padding(0, width=True),
    kfg.GLOBAL_FEATS: Padding(0, width=True),
    kfg.RELATION: Padding(0),
    kfg.ATTRIBUTE: Padding(0),
    kfg.V_TARGET: Padding(0),
    kfg.V_TARGET_LABELS: Padding(-1),
    kfg.U_TOKENS_IDS: Padding(0, mask=kfg.TOKENS_MASKS),
    kfg.U_TOKENS_IDS_WO_MASK: Padding(0),
    kfg.P_TOKENS_IDS: Padding(0, mask=kfg.P_TOKENS_MASKS),
    kfg.U_TOKENS_TYPE: Padding(0),
    kfg.U_POSITIONS: Padding(0),
    kfg.U_TARGET_IDS: Padding(-1),
    kfg.G_TOKENS_IDS: Padding(0, mask=kfg.TOKENS_MASKS),
    kfg.G_TOKENS_TYPE: Padding(1),
    kfg.G_TARGET_IDS: Padding(-1),
    kfg.SEMANTICS_IDS: Padding(0, mask=kfg.SEMANTICS_MASK),
    kfg.SEMANTICS_LABELS: Padding(-1),
    kfg.SEMANTICS_MISS_LABELS: Padding(-1),
}
"""The table: one line per padded key. A project adds a line for a key of its own."""

COUNTS = (kfg.SEQ_PER_SAMPLE, kfg.SAMPLE_PER_SAMPLE)
"""Keys that hold one number for the whole batch."""


def collate(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Pad, mask and stack samples to a batch.

    Args:
        samples: Dicts as datasets emit them: tensors, arrays or numbers, lists of them where
            an image has several queries, strings.

    Returns:
        A new dict. Keys of :data:`PADDINGS` are padded tensors with their masks; IDS is a list of
        B strings; SEQ_PER_SAMPLE is an int; IMAGES are stacked, those of clips (frames, 3, height,
        width) padded to the most frames with ATT_MASKS of the frames; other keys are stacked when
        all values are tensors of one shape, and otherwise kept as a flat list. Notes about bad
        records are passed on under ``_BAD``; a batch of nothing but bad records holds only these.

    Raises:
        UserError: The samples do not fit together: a key that some lack, widths that differ.
    """
    good, notes = take_notes(list(samples))
    batch: dict[str, Any] = {}
    for key in _common_keys(good or []):
        values = [sample[key] for sample in good]
        if key == kfg.IDS:
            batch[key] = [_identity(value) for value in values]
        elif key in COUNTS:
            batch[key] = _one_count(key, values)
        elif key in PADDINGS:
            batch.update(_pad(key, values, good))
        elif key == kfg.IMAGES:
            batch.update(_pictures(key, values, good))
        elif key == kfg.REGION_INDEX:  # every sample has one picture
            counts = torch.tensor([len(value) for value in values])
            batch[key] = torch.arange(len(values)).repeat_interleave(counts)
        else:
            batch[key] = _stack(values)
    if notes:
        batch[BAD_KEY] = notes
    return batch


def pad_tensors(tensors: Sequence[Tensor], value: float) -> Tensor:
    """Stack tensors of equal rank, filling each up to the greatest size of every dimension.

    Args:
        tensors: n tensors of one rank and dtype.
        value: The filling.

    Returns:
        Tensor ``(n, max size of dim 0, max size of dim 1, ...)``.
    """
    shapes = {tensor.shape for tensor in tensors}
    if len(shapes) == 1:
        return torch.stack(list(tensors))
    greatest = [max(sizes) for sizes in zip(*shapes, strict=True)]
    padded = tensors[0].new_full((len(tensors), *greatest), value)
    for row, tensor in zip(padded, tensors, strict=True):
        row[tuple(slice(size) for size in tensor.shape)] = tensor
    return padded


def _common_keys(samples: list[dict[str, Any]]) -> list[str]:
    keys = list(dict.fromkeys(key for sample in samples for key in sample))
    for key in keys:
        lacking = [_name(sample) for sample in samples if key not in sample]
        if lacking:
            raise UserError(
                f"{key} is missing from sample {lacking[0]} but present in others of its batch; "
                "a mapper must give every sample the same keys"
            )
    # Last, since a sample with both kinds of tokens has the TOKENS_MASKS of its generated text; of
    # several answers, which are told from padding by their targets, it has that of the question.
    last = kfg.U_TOKENS_IDS if kfg.ANSWER_COUNTS in keys else kfg.G_TOKENS_IDS
    return sorted(keys, key=lambda key: key == last)


def _name(sample: dict[str, Any]) -> str:
    return repr(_identity(sample[kfg.IDS])) if kfg.IDS in sample else "(without IDS)"


def _identity(value: Any) -> Any:
    if isinstance(value, list | tuple):  # retrieval pairs an image with the ids of its captions
        return list(value)
    if isinstance(value, Tensor | np.ndarray):
        value = np.asarray(value)
        return str(value.item()) if value.size == 1 else value.tolist()
    return str(value)


def _one_count(key: str, values: list[Any]) -> int:
    counts = {int(value) for value in values}
    if len(counts) > 1:
        raise UserError(f"{key} differs within one batch: {sorted(counts)}; it must be constant")
    return counts.pop()


def as_tensor(value: Any) -> Tensor:
    """A tensor of an array or number; numpy's unsigned ids become int64."""
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    if array.dtype in (np.uint16, np.uint32, np.uint64):
        array = array.astype(np.int64)
    return torch.as_tensor(array)


def _rows(values: list[Any]) -> list[Any]:
    """Flatten the lists that samples with several queries hold, image by image."""
    if any(isinstance(value, list | tuple) for value in values):
        return [row for value in values for row in value]
    return values


def _pad(key: str, values: list[Any], samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    rule = PADDINGS[key]
    tensors = [as_tensor(row) for row in _rows(values)]
    if key == kfg.GLOBAL_FEATS:  # files hold one vector as (D,) or as (1, D)
        tensors = [t[0] if t.ndim == 2 and t.shape[0] == 1 else t for t in tensors]
    ranks = {tensor.ndim for tensor in tensors}
    widths = {tensor.shape[-1] for tensor in tensors} if rule.width and 0 not in ranks else set()
    if len(ranks) > 1 or len(widths) > 1:
        shapes = sorted({tuple(tensor.shape) for tensor in tensors})
        names = ", ".join(_name(sample) for sample in samples[:8])
        raise UserError(f"{key} of samples {names} do not fit into one batch: shapes {shapes}")
    if ranks == {0}:
        return {key: torch.stack(tensors)}
    batch = {key: pad_tensors(tensors, rule.value)}
    if rule.mask:
        lengths = torch.tensor([len(tensor) for tensor in tensors])
        batch[rule.mask] = torch.arange(batch[key].shape[1]) < lengths[:, None]
    return batch


def _pictures(key: str, values: list[Any], samples: list[dict[str, Any]]) -> dict[str, Tensor]:
    """Pictures of one size, or clips of one size and any number of frames."""
    tensors = [as_tensor(row) for row in _rows(values)]
    frames = {(tensor.ndim, *tensor.shape[-3:], tensor.dtype) for tensor in tensors}
    if len(frames) > 1 or not tensors[0].ndim >= 3:
        shapes = sorted({tuple(tensor.shape) for tensor in tensors})
        names = ", ".join(_name(sample) for sample in samples[:8])
        raise UserError(f"pictures of samples {names} differ in size or type: shapes {shapes}")
    if tensors[0].ndim == 3:
        return {key: torch.stack(tensors)}
    lengths = torch.tensor([len(tensor) for tensor in tensors])
    batch = {key: pad_tensors(tensors, 0)}
    return {**batch, kfg.ATT_MASKS: torch.arange(batch[key].shape[1]) < lengths[:, None]}


def _stack(values: list[Any]) -> Tensor | list[Any]:
    rows = _rows(values)
    if rows and all(isinstance(r, Tensor | np.ndarray | np.generic | int | float) for r in rows):
        tensors = [as_tensor(row) for row in rows]
        if len({(tensor.shape, tensor.dtype) for tensor in tensors}) == 1:
            return torch.stack(tensors)
    return rows
