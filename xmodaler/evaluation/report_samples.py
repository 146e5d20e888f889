"""The samples of a report: pictures with what a model said about them."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.utils.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["cell_text", "draw_sample"]

_PICTURE_SIDE = 448  # longest side of a picture in the report, in pixels
_HIT_SIDE = 200  # of a picture that was found
_TILE_SIDE = 152  # of the picture behind the attention of a word; shown at half the size
_SMALL_SIDE = 160  # pictures up to this side are enlarged without smoothing
_DARKEST = 0.75  # opacity of the veil over what the model does not look at


def cell_text(value: Any) -> str:
    """A value as the tables of a report show it."""
    if value is None:
        return "–"
    if isinstance(value, bool | int | str):
        return str(value)
    return f"{float(value):.3f}"


def draw_sample(sample: Mapping[str, Any]) -> dict[str, Any]:
    """What the template shows of a sample.

    Args:
        sample: ``caption`` (str), the sentence, answer or query, and optionally

            * ``image`` (PIL image or path), ``references`` (list of str), ``scores`` (name to
              number),
            * ``words`` (list of T str) and ``attention`` (weights ``(T, gh, gw)``, or ``(T, N)``
              with N a square),
            * ``question`` (str) and ``bars`` (list of ``(text, share, right)``): what was asked
              and the answers with their shares in [0, 1], right ones marked,
            * ``hits`` (list of ``{"image" or "text", "score", "right"}``): what was found.
    """
    shown: dict[str, Any] = {
        "caption": sample.get("caption", ""),
        "question": sample.get("question", ""),
        "references": list(sample.get("references") or ()),
        "badges": [
            (name, cell_text(value)) for name, value in (sample.get("scores") or {}).items()
        ],
        "bars": [_bar(*bar) for bar in sample.get("bars") or ()],
        "hits": [_hit(hit) for hit in sample.get("hits") or ()],
        "picture": None,
        "words": [],
    }
    picture = _open(sample.get("image"))
    if picture is None:
        return shown
    shown |= _embedded(picture, _PICTURE_SIDE)
    shown["alt"] = shown["caption"] or "test picture"
    maps = _grids(sample.get("attention"))
    if maps is not None:
        words = sample.get("words") or shown["caption"].split()
        kind = "PNG" if shown["small"] else "JPEG"
        shown |= {
            "thumbnail": _data_uri(_fit(picture, _TILE_SIDE), kind),
            "ratio": f"{picture.width} / {picture.height}",
            "words": [
                {"text": word, "veil": _data_uri(_veil(weights), "PNG")}
                for word, weights in zip(words, maps, strict=False)
            ],
        }
    return shown


def _bar(text: str, share: float, right: bool = False) -> dict[str, Any]:
    share = min(1.0, max(0.0, float(share)))
    return {"text": text, "width": f"{100 * share:.1f}", "value": f"{share:.2f}", "right": right}


def _hit(hit: Mapping[str, Any]) -> dict[str, Any]:
    picture = _open(hit.get("image"))
    return {
        "text": hit.get("text", ""),
        "score": cell_text(hit.get("score")),
        "right": bool(hit.get("right")),
        **({"picture": None} if picture is None else _embedded(picture, _HIT_SIDE)),
    }


def _embedded(picture: Image.Image, side: int) -> dict[str, Any]:
    small = max(picture.size) <= _SMALL_SIDE
    resized = _fit(picture, side)
    return {
        "picture": _data_uri(resized, "PNG" if small else "JPEG"),
        "small": small,
        "width": resized.width,
        "height": resized.height,
    }


def _open(image: Any) -> Image.Image | None:
    if image is None:
        return None
    if isinstance(image, str | os.PathLike):
        from xmodaler.utils.pictures import load_picture

        return load_picture(image, min_side=_PICTURE_SIDE)
    return image.convert("RGB")


def _fit(picture: Image.Image, side: int) -> Image.Image:
    """The picture with its longest side brought down to ``side``; never enlarged."""
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size)


def _data_uri(picture: Image.Image, kind: str) -> str:
    buffer = io.BytesIO()
    options = {"quality": 82, "optimize": True} if kind == "JPEG" else {"optimize": True}
    picture.save(buffer, kind, **options)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{kind.lower()};base64,{encoded}"


def _grids(attention: Any) -> np.ndarray | None:
    """Attention as float ``(T, gh, gw)``; None where there is none or it has no layout."""
    if attention is None:
        return None
    if hasattr(attention, "detach"):
        attention = attention.detach().float().cpu()
    weights = np.asarray(attention, dtype=np.float64)
    if weights.ndim == 2:
        side = math.isqrt(weights.shape[1])
        if side * side != weights.shape[1]:
            return None
        weights = weights.reshape(-1, side, side)
    if weights.ndim != 3:
        raise UserError(f"attention maps have shape {weights.shape}; (T, gh, gw) is right")
    return np.nan_to_num(np.clip(weights, 0, None))


def _veil(weights: np.ndarray) -> Image.Image:
    """A black layer that is clear where the model looks; a pixel per cell, smoothed when shown."""
    from PIL import Image

    peak = weights.max()
    light = weights / peak if peak > 0 else np.zeros_like(weights)
    opacity = np.rint((1 - light) * _DARKEST * 255).astype(np.uint8)
    # A few pixels per cell: browsers blur the border of a tiny picture towards transparency.
    height, width = weights.shape
    scale = max(1, 48 // max(height, width))
    alpha = Image.fromarray(opacity).resize((width * scale, height * scale), Image.BICUBIC)
    layer = Image.new("LA", alpha.size, (0, 0))
    layer.putalpha(alpha)
    return layer
