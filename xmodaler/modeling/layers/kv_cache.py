"""Keys and values of the words generated so far, stored once per image.

All hypotheses of one image write into one growing store ``(B, heads, slots, d)``; a hypothesis is
the list of the slots that hold its own words. Reordering beams therefore moves a few integers
instead of keys and values, and a word shared by several hypotheses is stored once.
"""

from typing import Any

import torch
from torch import Tensor

from .masking import additive

Cache = dict[str, Any]
"""``keys`` and ``values``: per layer (B, heads, capacity, d) or None; ``used``: slots in use."""

_CHUNK = 16


def empty_cache(num_layers: int) -> Cache:
    """A cache in which no word is stored."""
    return {"keys": [None] * num_layers, "values": [None] * num_layers, "used": 0}


def empty_history(images: int, device: torch.device) -> Tensor:
    """(B, 0) int64: the slots of one hypothesis per image before any word."""
    return torch.zeros(images, 0, dtype=torch.long, device=device)


def copied(cache: Cache) -> Cache:
    """A cache whose layers can be set without changing this one's."""
    return {**cache, "keys": list(cache["keys"]), "values": list(cache["values"])}


def own_slots(slots: Tensor, used: int, groups: int) -> Tensor:
    """The slots of each hypothesis once this step's words are stored.

    Args:
        slots: (R, t) int64, slots of the earlier words.
        used: Slots in use before this step.
        groups: Hypotheses per image; the g-th of an image takes slot ``used + g``.

    Returns:
        (R, t + 1) int64.
    """
    new = used + torch.arange(slots.shape[0], device=slots.device).remainder(groups)
    return torch.cat([slots, new[:, None]], dim=1)


def slot_mask(slots: Tensor, used: int, images: int, dtype: torch.dtype) -> Tensor | None:
    """Which stored words each hypothesis may look at.

    Args:
        slots: (R, t) int64, slots of all words of each hypothesis.
        used: Slots in use.
        images: B.
        dtype: Of the additive mask.

    Returns:
        (B, 1, R / B, used) additive, or None when every hypothesis owns every slot.
    """
    if used == slots.shape[1]:
        return None
    owned = torch.zeros(slots.shape[0], used, dtype=torch.bool, device=slots.device)
    owned.scatter_(1, slots, True)
    return additive(owned, dtype).view(images, 1, -1, used)


def store(cache: Cache, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Write one step's keys and values of a layer; ``used`` is advanced by the caller.

    Args:
        cache: Changed in place.
        layer: Number of the layer.
        key: (B, heads, G, d).
        value: (B, heads, G, d).

    Returns:
        All keys and values in use, (B, heads, used + G, d) each.
    """
    used, end = cache["used"], cache["used"] + key.shape[2]
    stored = []
    for name, new in (("keys", key), ("values", value)):
        old = cache[name][layer]
        if torch.is_grad_enabled() and new.requires_grad:
            # Autograd keeps what earlier steps read, so nothing may be overwritten.
            full = new if used == 0 else torch.cat([old[:, :, :used], new], dim=2)
        else:
            full = _with_room(old, new, used, end)
            full[:, :, used:end] = new
        cache[name][layer] = full
        stored.append(full[:, :, :end])
    return stored[0], stored[1]


def _with_room(old: Tensor | None, new: Tensor, used: int, end: int) -> Tensor:
    """The store itself while it has room for ``end`` slots, else a larger copy."""
    if old is not None and old.shape[2] >= end:
        return old
    images, heads, groups, width = new.shape
    full = new.new_empty(images, heads, end + (_CHUNK - 1) * groups, width)
    if old is not None:
        full[:, :, :used] = old[:, :, :used]
    return full
