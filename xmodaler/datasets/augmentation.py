"""How pictures are changed by chance before a model learns from them."""

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xmodaler.utils.errors import UserError, did_you_mean

__all__ = ["ALL_CHANGES", "COLOUR_CHANGES", "PictureAugment", "RandAugment", "change_picture"]

COLOUR_CHANGES = ("Identity", "AutoContrast", "Equalize", "Brightness", "Sharpness")
"""Those that leave boxes where they are."""
MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
ALL_CHANGES = COLOUR_CHANGES + MOVES

GREY = 128.0
"""What comes into the picture from outside."""
_GREATEST = 10
_LIMITS = {"ShearX": 0.3, "ShearY": 0.3, "TranslateX": 10.0, "TranslateY": 10.0, "Rotate": 30.0}
"""Of moves at level 10: slope, pixels, degrees."""


def amount(name: str, level: float) -> float:
    """The argument of a change at a level of 0 to 10; 0 for those that have none."""
    if name in ("Brightness", "Sharpness"):
        return level / _GREATEST * 1.8 + 0.1
    return level / _GREATEST * _LIMITS.get(name, 0.0)


def change_picture(image: Tensor, name: str, value: float = 0.0, wraps: bool = False) -> Tensor:
    """One change of a picture.

    Args:
        image: (3, H, W) uint8.
        name: One of :data:`ALL_CHANGES`.
        value: A factor, a slope, pixels or degrees.
        wraps: Compute in bytes that wrap around, as the code did that the released X²-VLM was
            trained with: AutoContrast whitens every channel without black, and what Sharpness
            makes darker than black is light.

    Returns:
        (3, H, W) uint8.
    """
    from torchvision.transforms import v2

    if name in MOVES:
        return _move(image, name, value)
    if name == "AutoContrast":
        return _stretch(image, wraps)
    if name == "Equalize":
        return v2.functional.equalize(image)
    if name == "Brightness":
        return v2.functional.adjust_brightness(image, value)
    if name == "Sharpness":
        return _sharpen(image, value, wraps)
    return image


def _stretch(image: Tensor, wraps: bool) -> Tensor:
    """Every channel from its darkest value at 0 to its lightest at 255."""
    channels = []
    for channel in image:
        low, high = int(channel.min()), int(channel.max())
        if high > low:
            scale = 255.0 / (high - low)
            start = float((256 - low) % 256) if wraps else -float(low)
            table = torch.arange(256, dtype=torch.float64) * scale + start * scale
            channel = table.clamp(0, 255).to(torch.uint8)[channel.long()]
        channels.append(channel)
    return torch.stack(channels)


def _sharpen(image: Tensor, factor: float, wraps: bool) -> Tensor:
    from torchvision.transforms import v2

    # A factor of 0 gives the blurred picture; its border of one pixel is not blurred.
    blurred = v2.functional.adjust_sharpness(image, 0.0).float()
    sharp = blurred + factor * (image.float() - blurred)
    if wraps:
        return (sharp.to(torch.int32) & 255).to(torch.uint8)
    return sharp.clamp(0, 255).to(torch.uint8)


def _move(image: Tensor, name: str, value: float) -> Tensor:
    from torchvision.transforms import v2

    # torchvision counts from the corner of the first pixel, these moves from its middle.
    settings: dict[str, Any] = {
        "angle": 0.0,
        "translate": [0, 0],
        "scale": 1.0,
        "shear": [0.0, 0.0],
        "center": [0.5, 0.5],
    }
    if name == "Rotate":
        settings["angle"] = -value
        settings["center"] = [image.shape[-1] / 2 + 0.5, image.shape[-2] / 2 + 0.5]
    else:
        kind, axis = ("shear", -math.degrees(math.atan(value))), "XY".index(name[-1])
        if name.startswith("Translate"):
            kind = ("translate", -value)
        settings[kind[0]] = [kind[1] if place == axis else 0.0 for place in (0, 1)]
    # torchvision mixes a filling into the border twice; a filling of 0 needs no mixing.
    shifted = image.float() - GREY
    bilinear = v2.InterpolationMode.BILINEAR
    moved = v2.functional.affine(shifted, interpolation=bilinear, **settings)
    return (moved + GREY).round().clamp(0, 255).to(torch.uint8)


class RandAugment:
    """Some changes drawn by chance, of one strength (Cubuk et al. 2020; levels of X²-VLM).

    Args:
        number: Changes to draw; each is made with probability one half.
        level: Strength, 0 to 10; moves go either way.
        changes: Names to draw from.
        wraps: See :func:`change_picture`.
        rng: Legacy NumPy source of chance.
    """

    def __init__(
        self,
        number: int = 2,
        level: float = 7,
        changes: Sequence[str] = ALL_CHANGES,
        wraps: bool = False,
        rng: Any = np.random,
    ) -> None:
        for name in changes:
            if name not in ALL_CHANGES:
                raise UserError(
                    f"'{name}' is no change of pictures; there are {', '.join(ALL_CHANGES)}"
                    f"{did_you_mean(name, ALL_CHANGES)}"
                )
        self.number = number
        self.level = level
        self.changes = tuple(changes)
        self.wraps = wraps
        self.rng = rng

    def __call__(self, image: Tensor) -> Tensor:
        """Change a picture (3, H, W) uint8; the given one stays as it is."""
        for name in self.rng.choice(self.changes, self.number):
            if self.rng.random_sample() > 0.5:
                continue
            value = amount(name, self.level)
            if name in MOVES and self.rng.random_sample() > 0.5:
                value = -value
            image = change_picture(image, str(name), value, self.wraps)
        return image


class PictureAugment:
    """A random part of a picture, mirrored half of the time, then :class:`RandAugment`.

    Args:
        size: Side of the square.
        smallest: Least share of the picture that is kept: 0.2 in pre-training, 0.5 later.
        augment: What is done at last; None for nothing.
    """

    def __init__(
        self,
        size: int,
        smallest: float = 0.2,
        augment: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.size = size
        self.smallest = smallest
        self.augment = augment
        self._crop: Any = None

    def __call__(self, picture: Any, may_mirror: bool = True) -> Tensor:
        """A loaded RGB picture as (3, size, size) uint8.

        Args:
            picture: From PIL.
            may_mirror: False where a text speaks of left or right.
        """
        from torchvision.transforms import v2

        if self._crop is None:
            bicubic = v2.InterpolationMode.BICUBIC
            self._crop = v2.RandomResizedCrop(
                self.size, scale=(self.smallest, 1.0), interpolation=bicubic
            )
        image = v2.functional.pil_to_tensor(self._crop(picture))
        if may_mirror and random.random() < 0.5:
            image = image.flip(-1)
        return image if self.augment is None else self.augment(image)
