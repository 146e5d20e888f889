"""The box that a text describes."""

from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.functional.func_boxes import centre_to_corners, generalized_iou

from .build import LOSSES_REGISTRY


def box_losses(
    predicted: Tensor, target: Tensor, is_image: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Distance and ``1 - GIoU`` (Rezatofighi et al., CVPR 2019) of boxes.

    Args:
        predicted: (R, 4) centre x, centre y, width, height, as shares of the picture.
        target: (R, 4).
        is_image: (R,), 1 for rows that describe no box and do not count.

    Returns:
        Two scalars in float32: the sum of the four absolute differences, and 1 - GIoU, both means
        over the boxes. Without any box both are 0. A box of negative size counts in the first
        alone.
    """
    predicted, target = predicted.float(), target.float()
    counts = torch.ones_like(target[:, 0]) if is_image is None else 1 - is_image.float()
    number = counts.sum().clamp(min=1)
    distance = ((predicted - target).abs().sum(1) * counts).sum() / number
    regular = ((predicted[:, 2:] >= 0) & (target[:, 2:] >= 0)).all(1)
    overlap = generalized_iou(
        centre_to_corners(predicted).where(regular[:, None], 0.0),
        centre_to_corners(target).where(regular[:, None], 0.0),
    )
    return distance, ((1 - overlap) * (counts * regular)).sum() / number


@LOSSES_REGISTRY.register()
class BoxRegression(nn.Module):
    """:func:`box_losses` of OUTPUT_BBOX with TARGET_BBOX, as ``Box L1`` and ``Box GIoU``."""

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        return {}

    def forward(self, outputs_dict: dict[str, Any]) -> dict[str, Tensor]:
        """Rows with IS_IMAGE 1 do not count; nothing where no boxes were predicted."""
        if kfg.OUTPUT_BBOX not in outputs_dict:
            return {}
        distance, overlap = box_losses(
            outputs_dict[kfg.OUTPUT_BBOX],
            outputs_dict[kfg.TARGET_BBOX],
            outputs_dict.get(kfg.IS_IMAGE),
        )
        return {"Box L1": distance, "Box GIoU": overlap}
