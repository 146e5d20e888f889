"""What all vision towers share."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xmodaler.utils.errors import MissingDependencyError, UserError


@dataclass(frozen=True)
class RegionTokens:
    """Regions of pictures: a class token of their own, patches that may be shared.

    Attributes:
        cls: (R, D), what stands for each region.
        patches: (M, P, D).
        index: (R,) int64, the row of ``patches`` of each region.
    """

    cls: Tensor
    patches: Tensor
    index: Tensor

    def dense(self) -> Tensor:
        """(R, 1 + P, D): every region with its own copy of the patches."""
        return torch.cat([self.cls.unsqueeze(1), self.patches.index_select(0, self.index)], dim=1)


class VisionTower(nn.Module, ABC):
    """A network from pixels (N, 3, H, W), already normalised, to tokens (N, 1 + P, D).

    Token 0 stands for the whole picture; the P patches follow row by row.

    Args:
        image_size: Side of the pictures in pixels.
        stride: Pixels a patch, along each side.
        width: D.
    """

    def __init__(self, *, image_size: int, stride: int, width: int) -> None:
        super().__init__()
        if image_size < stride or image_size % stride:
            raise UserError(
                f"{type(self).__name__}: pictures of {image_size} pixels cannot be cut into "
                f"patches of {stride}; DATALOADER.IMAGE_SIZE must be a multiple"
            )
        self.image_size = image_size
        self.stride = stride
        self.width = width
        self.side = image_size // stride

    @property
    def patches(self) -> int:
        """P."""
        return self.side**2

    @abstractmethod
    def forward(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 1 + P, D)."""

    def regions(self, pixels: Tensor, index: Tensor, shown: Tensor) -> tuple[RegionTokens, Tensor]:
        """Regions of pictures and the pictures themselves, in one pass over the pictures.

        A region is the mean of its patches, in front of all patches of its picture (X²-VLM, Zeng
        et al. 2022, section 3.1).

        Args:
            pixels: (N, 3, H, W).
            index: (R,) int64, the picture of each region.
            shown: (R, 1 + P), 1 or True for the patches of the region; column 0 has no effect.

        Returns:
            The regions, and the tokens (N, 1 + P, D) of the pictures.
        """
        tokens = self(pixels)
        patches = tokens[:, 1:]
        number, count, _ = patches.shape
        inside = shown[:, 1:].to(tokens.dtype)
        shares = inside / inside.sum(1, keepdim=True).clamp(min=1)
        # One product with a matrix that is zero for other pictures needs no copies of patches.
        spread = shares.new_zeros(len(index), number, count)
        spread[torch.arange(len(index), device=index.device), index] = shares
        cls = spread.flatten(1) @ patches.flatten(0, 1)
        return RegionTokens(cls, patches, index), tokens

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep only the inputs of blocks for the backward pass and compute the rest again."""
        self.backbone.set_grad_checkpointing(enable)

    def check_pixels(self, pixels: Tensor) -> None:
        """Refuse pictures of another size.

        Raises:
            UserError: Their shape is not (N, 3, image_size, image_size).
        """
        side = self.image_size
        if pixels.dim() != 4 or tuple(pixels.shape[1:]) != (3, side, side):
            raise UserError(
                f"{type(self).__name__} was built for pictures (N, 3, {side}, {side}), but got "
                f"{tuple(pixels.shape)}; set DATALOADER.IMAGE_SIZE to the size of the pictures"
            )


def import_timm(owner: str) -> None:
    """Make sure that timm is there.

    Raises:
        MissingDependencyError: It is not.
    """
    try:
        import timm  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f"{owner} needs the library timm; install it with `pip install timm`"
        ) from error
