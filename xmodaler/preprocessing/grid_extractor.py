"""Grid and global features of pictures and frames by a timm backbone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from xmodaler.datasets.pictures import PictureReader
from xmodaler.modeling.embedding.timm_backbone import build_backbone
from xmodaler.utils.env import resolve_device
from xmodaler.utils.errors import UserError

KINDS = ("grid", "global", "both")


class GridExtractor:
    """The last feature map of a backbone, as the captioners read it.

    ``grid`` stores the cells row by row, ``features`` (N, C); ``global`` their mean, ``features``
    (1, C); ``both`` the cells and their mean, ``features`` (N, C) and ``g_feature`` (C,). Pictures
    are squeezed to a square.

    Args:
        model_name: A timm model.
        weights: A local weights file of it; '' for none.
        pretrained: Fetch the weights of the model hub.
        size: Side of the square in pixels.
        kind: One of :data:`KINDS`.
        cells: Average the map to ``cells x cells``; 0 keeps it.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        UserError: An argument is impossible or the weights do not fit.
    """

    def __init__(
        self,
        model_name: str = "resnet101",
        *,
        weights: str = "",
        pretrained: bool = False,
        size: int = 224,
        kind: str = "grid",
        cells: int = 0,
        device: str = "auto",
    ) -> None:
        if kind not in KINDS:
            raise UserError(f"kind '{kind}' is unknown; it is one of {', '.join(KINDS)}")
        if cells < 0:
            raise UserError(f"a grid of {cells} x {cells} cells is impossible; give 0 or more")
        self.settings: dict[str, Any] = {
            "model": model_name,
            "weights": weights,
            "pretrained": pretrained,
            "size": size,
            "kind": kind,
            "cells": cells,
        }
        self.kind, self.cells = kind, cells
        self.device = resolve_device(device)
        self.prepare = PictureReader(size).convert
        backbone = build_backbone(
            model_name, pretrained=pretrained, weights=weights, image_size=size
        )
        self.backbone: nn.Module = backbone.eval().to(self.device)
        self._channels_last = str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")
        statistics = backbone.pretrained_cfg
        self._mean, self._std = (
            torch.tensor(statistics[name], device=self.device).view(1, -1, 1, 1)
            for name in ("mean", "std")
        )

    @torch.inference_mode()
    def maps(self, pictures: Sequence[Tensor]) -> Tensor:
        """Feature maps (B, C, height, width) of uint8 pictures (3, size, size)."""
        pixels = torch.stack(list(pictures)).to(self.device).float() / 255
        maps = self.backbone((pixels - self._mean) / self._std)[-1]
        maps = maps.permute(0, 3, 1, 2) if self._channels_last else maps
        return adaptive_avg_pool2d(maps, self.cells) if self.cells else maps

    def pictures(self, pictures: Sequence[Tensor]) -> list[dict[str, np.ndarray]]:
        """The arrays to store for each of a batch of prepared pictures."""
        maps = self.maps(pictures).float().cpu()
        cells, means = maps.flatten(2).mT.contiguous().numpy(), maps.mean(dim=(2, 3)).numpy()
        if self.kind == "global":
            return [{"features": mean[None]} for mean in means]
        if self.kind == "grid":
            return [{"features": grid} for grid in cells]
        return [
            {"features": grid, "g_feature": mean} for grid, mean in zip(cells, means, strict=True)
        ]

    def video(self, frames: Sequence[Tensor], batch_size: int = 32) -> dict[str, np.ndarray]:
        """One row per frame: ``features`` (T, C), the mean of each frame's cells.

        Args:
            frames: Prepared pictures, in the order of time.
            batch_size: Frames that go through the backbone together.
        """
        chunks = [frames[k : k + batch_size] for k in range(0, len(frames), batch_size)]
        rows = [self.maps(chunk).mean(dim=(2, 3)).float().cpu() for chunk in chunks]
        return {"features": torch.cat(rows).numpy()}
