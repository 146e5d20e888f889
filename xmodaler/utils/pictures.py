"""Opening the pictures people have: any mode, any rotation, possibly broken; 8-bit RGB after."""

import io
import os
import warnings
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import UserError

MAX_PIXELS = 200_000_000  # 600 MB as RGB; beyond any camera, well below what a zip bomb declares

_SIXTEEN_BIT_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


def load_picture(
    path_or_bytes: str | os.PathLike[str] | bytes | IO[bytes],
    max_pixels: int = MAX_PIXELS,
    min_side: int | None = None,
) -> Image.Image:
    """Open a picture as 8-bit RGB, the way a person would see it.

    EXIF rotation is applied; transparency is laid on white; 16-bit and float greys are scaled to
    8 bits; of an animation the first frame is taken.

    Args:
        path_or_bytes: A file, its content, or an open binary file.
        max_pixels: Greatest width times height that is decoded.
        min_side: When given, a JPEG may be decoded at a fraction of its size as long as both
            sides keep at least this many pixels, which is several times faster.

    Returns:
        The picture in mode RGB.

    Raises:
        UserError: The file is missing, empty, truncated, no picture, or too large; the message
            names the file.
    """
    if isinstance(path_or_bytes, str | os.PathLike):
        name = f"'{os.fspath(path_or_bytes)}'"
        try:
            with open(path_or_bytes, "rb") as file:
                return _decode(file, name, max_pixels, min_side)
        except FileNotFoundError:
            raise UserError(f"Picture {name} does not exist") from None
        except IsADirectoryError:
            raise UserError(f"Picture {name} is a folder") from None
        except PermissionError:
            raise UserError(f"Picture {name} cannot be read: permission denied") from None
    if isinstance(path_or_bytes, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(path_or_bytes), "in memory", max_pixels, min_side)
    name = getattr(path_or_bytes, "name", None)
    return _decode(path_or_bytes, f"'{name}'" if name else "in memory", max_pixels, min_side)


def _decode(file: IO[bytes], name: str, max_pixels: int, min_side: int | None) -> Image.Image:
    if not file.read(1):
        raise UserError(f"Picture {name} is empty (0 bytes)")
    file.seek(0)
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures and odd metadata; neither is the user's concern here.
            warnings.simplefilter("ignore")
            picture = Image.open(file)
            width, height = picture.size
            if width * height > max_pixels:
                raise UserError(
                    f"Picture {name} is too large: {width}x{height} has more than "
                    f"{max_pixels} pixels"
                )
            if min_side is not None:
                scale = max(1, min(width, height) // max(1, min_side))
                picture.draft("RGB", (width // scale, height // scale))
            picture.load()
            return to_rgb(_upright(picture))
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"Picture {name} is not in a picture format that can be read") from None
    except Image.DecompressionBombError:
        raise UserError(f"Picture {name} declares too many pixels to be decoded") from None
    except Exception as error:
        # Decoders report damage as OSError, SyntaxError, ValueError, struct.error and others.
        raise UserError(f"Picture {name} is truncated or damaged: {error}") from error


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        # Damaged EXIF data is common, and no reason to lose the picture.
        return picture


def to_rgb(picture: Image.Image) -> Image.Image:
    """A decoded picture of any mode as 8-bit RGB; transparency is laid on white."""
    if picture.mode == "RGB":
        # A plugin's subclass holds on to its file; a plain image can be pickled and kept.
        return picture.copy()
    if picture.mode in _SIXTEEN_BIT_MODES:
        values = np.asarray(picture).astype(np.float64)
        return _eight_bit(values, *_sixteen_bit_range(values))
    if picture.mode == "F":
        values = np.asarray(picture).astype(np.float64)
        return _eight_bit(values, *_float_range(values))
    if picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        background = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(background, layer).convert("RGB")
    return picture.convert("RGB")


def _eight_bit(values: np.ndarray, low: float, high: float) -> Image.Image:
    scaled = (np.nan_to_num(values, nan=low) - low) * (255.0 / (high - low))
    grey = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _sixteen_bit_range(values: np.ndarray) -> tuple[float, float]:
    """0 to 65535; Pillow also opens 16-bit PNGs in its 32-bit mode, so only the values tell."""
    return 0.0, max(65535.0, float(values.max(initial=0)))


def _float_range(values: np.ndarray) -> tuple[float, float]:
    """[0, 1] or [0, 255], whichever the values fit, else the range they have."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    for limit in (1.0, 255.0):
        if low >= 0 and high <= limit:
            return 0.0, limit
    return low, high if high > low else low + 1.0
