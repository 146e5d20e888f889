"""Pictures in memory, of any kind, as 8-bit RGB."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from xmodaler.utils.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["as_picture"]


def as_picture(source: Any, name: str) -> Image.Image:
    """A PIL image or an array as an upright RGB picture.

    Args:
        source: A PIL image of any mode, or values (height, width[, 1, 3 or 4]).
        name: What to call it in messages.

    Raises:
        UserError: It is no picture, or cannot be decoded.
    """
    if isinstance(source, np.ndarray):
        source = _image_of_array(source, name)
    return _as_rgb(source, name)


def _image_of_array(array: np.ndarray, name: str) -> Image.Image:
    """A picture from ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)`` values."""
    from PIL import Image

    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    is_picture = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if not is_picture or 0 in array.shape:
        raise UserError(
            f"{name} is an array of shape {array.shape}; a picture is (height, width), "
            "(height, width, 3) or (height, width, 4)"
        )
    if array.dtype == np.uint16:
        array = (array // 257).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        # The usual scales are 0..1 and 0..255; anything else is a mistake better named.
        values = array.astype(np.float64)
        if not np.isfinite(values).all() or values.min() < 0 or values.max() > 255:
            raise UserError(f"{name} has pixels that are not within 0 and 255 (or 0 and 1)")
        is_unit = np.issubdtype(array.dtype, np.floating) and values.max() <= 1
        array = np.rint(values * 255 if is_unit else values).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(array))


def _as_rgb(picture: Image.Image, name: str) -> Image.Image:
    """As the file of this picture would be read: upright, transparency on white, 16 bits to 8."""
    from PIL import ImageOps

    from xmodaler.utils.pictures import load_picture

    try:
        picture = ImageOps.exif_transpose(picture)
        if picture.mode == "RGB":
            return picture
        buffer = io.BytesIO()
        # PNG keeps the transparency of palettes, TIFF holds every other mode that matters.
        picture.save(buffer, "PNG" if picture.mode in ("1", "L", "LA", "P", "RGBA") else "TIFF")
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{name} cannot be decoded: {error}") from error
    return load_picture(buffer.getvalue())
