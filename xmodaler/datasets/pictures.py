"""Pictures as uint8 tensors of one size."""

import os
from collections.abc import Callable

from torch import Tensor

from xmodaler.utils.errors import UserError
from xmodaler.utils.file_io import expand_path

from .bad_samples import SampleError

SMALLEST_CROP = 0.5
"""Least part of the area that a training crop keeps: captions speak of the whole picture."""


class PictureReader:
    """Reads a picture file as a uint8 tensor ``(3, size, size)``.

    The picture is squeezed to a square, so that nothing of it is lost. ``augment`` takes a random
    crop first. It never mirrors, because captions say "left" and "right".

    Args:
        size: Side of the square in pixels.
        augment: Crop at random, for training.
    """

    def __init__(self, size: int, augment: bool = False) -> None:
        if size < 1:
            raise UserError(f"DATALOADER.IMAGE_SIZE is {size}; a positive number of pixels is due")
        self.size = size
        self.augment = augment
        self._transform: Callable | None = None

    def prepare(self) -> None:
        """Import what reading needs, so that forked workers have it already."""
        from torchvision.transforms import v2

        square = (self.size, self.size)
        bicubic = v2.InterpolationMode.BICUBIC
        resize = (
            v2.RandomResizedCrop(square, scale=(SMALLEST_CROP, 1.0), interpolation=bicubic)
            if self.augment
            else v2.Resize(square, interpolation=bicubic)
        )
        self._transform = v2.Compose([resize, v2.PILToTensor()])

    def convert(self, picture: "PIL.Image.Image") -> Tensor:  # noqa: F821
        """A loaded RGB picture as a uint8 tensor ``(3, size, size)``."""
        if self._transform is None:
            self.prepare()
        return self._transform(picture)

    def __call__(self, path: str | os.PathLike) -> Tensor:
        """Read a file.

        Raises:
            SampleError: It does not exist or is not a picture that can be decoded.
        """
        path = expand_path(path)
        if not os.path.isfile(path):
            raise SampleError(f"picture '{path}'", "the file does not exist")
        return self._decode(path)

    def decode(self, content: bytes, name: str) -> Tensor:
        """Read the content of a file.

        Args:
            content: Its bytes.
            name: What it is called in messages.

        Raises:
            SampleError: It is not a picture that can be decoded.
        """
        try:
            return self._decode(content)
        except SampleError as error:
            raise SampleError(name, str(error)) from None

    def _decode(self, source: str | bytes) -> Tensor:
        from xmodaler.utils.pictures import load_picture

        try:
            # A crop of half the area is enlarged; twice the side keeps its pixels real.
            picture = load_picture(source, min_side=self.size * (2 if self.augment else 1))
        except UserError as error:
            raise SampleError(str(error)) from None
        return self.convert(picture)
