"""Embedding of pictures and videos by a vision backbone of the timm library."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import UserError

from .build import EMBEDDING_REGISTRY
from .timm_backbone import build_backbone, keyword_args
from .visual_embed import visual_layers


@EMBEDDING_REGISTRY.register()
class TimmEmbedding(nn.Module):
    """From pixels to region-like tokens: ``dropout(norm(act(W cell + W_box box)))`` per grid cell.

    The last feature map of the backbone (or an earlier, finer one) is a grid of cells. With a
    location layer, each cell's box is embedded too, which tells the cells where they are. With a
    global token, the mean cell goes in front of the grid through a Linear of its own.

    Of a video every frame is embedded alike, as one token or as a small grid of tokens that are
    means of cells; what is padding goes through no network. With a time layer, frames are told
    when they are, ``(k + 1/2) / F`` for frame k of F. The global token of a video is the mean cell
    of all its frames.

    The backbone's pixel statistics are buffers of this module, so that they are saved with the
    model. A frozen backbone runs without gradients and with its norms in eval mode, on few frames
    at a time, so that long videos need no more memory than short ones. (To train a backbone takes
    memory for all frames of a batch.)

    Args:
        backbone: Network (B, 3, H, W) -> [feature map], with ``feature_info``, as
            ``timm.create_model(..., features_only=True)`` makes it; see :func:`build_backbone`.
        out_dim: Width of the tokens.
        mean: Pixel mean per channel, of pixels in [0, 1].
        std: Pixel standard deviation per channel.
        frozen: Whether the backbone stays as it is.
        global_token: Whether the mean cell is put in front.
        embeddings_act: Activation.
        embeddings_norm: Norm over the last axis.
        embeddings_dropout: Dropout.
        embeddings_pos: Linear of the five box numbers of a cell.
        embeddings_time: Linear of the time of a frame.
        frame_grid: g, for g x g tokens a frame of a video; 0 for all cells of the feature map.
        frames_at_a_time: Frames that a backbone without gradients sees together.
    """

    reads_pictures = True

    pretrained_parts = ("backbone",)
    """Parts whose weights another initialisation leaves alone."""

    @configurable
    def __init__(
        self,
        *,
        backbone: nn.Module,
        out_dim: int,
        mean: Sequence[float] = (0.485, 0.456, 0.406),
        std: Sequence[float] = (0.229, 0.224, 0.225),
        frozen: bool = False,
        global_token: bool = False,
        embeddings_act: nn.Module | None = None,
        embeddings_norm: nn.Module | None = None,
        embeddings_dropout: nn.Module | None = None,
        embeddings_pos: nn.Module | None = None,
        embeddings_time: nn.Module | None = None,
        frame_grid: int = 1,
        frames_at_a_time: int = 32,
    ) -> None:
        super().__init__()
        if frame_grid < 0 or frames_at_a_time < 1:
            raise UserError(
                f"MODEL.TIMM.FRAME_GRID is {frame_grid} and FRAMES_AT_A_TIME {frames_at_a_time}; "
                "the first must be 0 or more, the second 1 or more"
            )
        # The layout in which convolutions are fastest, on CPUs as on GPUs.
        self.backbone = backbone.to(memory_format=torch.channels_last)
        self.channels_last = str(getattr(backbone, "output_fmt", "NCHW")).endswith("NHWC")
        self.frozen = frozen
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float).view(1, -1, 1, 1))
        width = backbone.feature_info.channels()[-1]
        self.embeddings = nn.Linear(width, out_dim)
        self.g_embeddings = nn.Linear(width, out_dim) if global_token else None
        self.embeddings_act = embeddings_act
        self.embeddings_norm = embeddings_norm
        self.embeddings_dropout = embeddings_dropout
        self.embeddings_pos = embeddings_pos
        self.embeddings_time = embeddings_time
        self.frame_grid = frame_grid
        self.frames_at_a_time = frames_at_a_time
        if frozen:
            self.backbone.requires_grad_(False).eval()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        node = cfg.MODEL.TIMM
        backbone = build_backbone(
            node.MODEL_NAME,
            pretrained=node.PRETRAINED,
            weights=node.WEIGHTS,
            out_index=node.OUT_INDEX,
            image_size=cfg.DATALOADER.IMAGE_SIZE,
            **keyword_args(node.ARGS),
        )
        statistics = backbone.pretrained_cfg
        out_dim = cfg.MODEL.VISUAL_EMBED.OUT_DIM
        return {
            "backbone": backbone,
            "out_dim": out_dim,
            "mean": statistics["mean"],
            "std": statistics["std"],
            "frozen": node.FROZEN,
            "global_token": node.GLOBAL_TOKEN,
            **visual_layers(cfg),
            "embeddings_time": nn.Linear(1, out_dim) if node.FRAME_TIME else None,
            "frame_grid": node.FRAME_GRID,
            "frames_at_a_time": node.FRAMES_AT_A_TIME,
        }

    @classmethod
    def add_config(cls, cfg: CfgNode) -> None:
        """Creates MODEL.TIMM."""
        cfg.MODEL.TIMM = CfgNode(
            {
                "MODEL_NAME": "resnet18",
                "PRETRAINED": False,  # weights of the model hub
                "FROZEN": False,
                "WEIGHTS": "",  # a local file with weights of the backbone
                "OUT_INDEX": -1,  # which feature map: -1 the last, 0 the finest
                "GLOBAL_TOKEN": False,  # the mean cell as one more token in front
                "FRAME_GRID": 1,  # g: a frame of a video becomes g x g tokens; 0: all its cells
                "FRAME_TIME": False,  # tell the frames of a video when they are
                "FRAMES_AT_A_TIME": 32,  # through a backbone without gradients, to bound memory
                "ARGS": [],  # further arguments of timm.create_model: [KEY, VALUE, KEY, VALUE]
            }
        )

    def train(self, mode: bool = True) -> "TimmEmbedding":
        """As for any module, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, batched_inputs: dict[str, Any]) -> dict[str, Tensor]:
        """ATT_FEATS (B, N, D) and ATT_MASKS (B, N) from IMAGES, uint8 or float in [0, 1].

        Pictures are (B, 3, height, width): N is the number of cells, row by row, all visible.
        Videos are (B, F, 3, height, width), with ATT_MASKS (B, F) True for real frames or absent:
        N is F times the tokens a frame, frame by frame. A global token is one more, in front.
        """
        images = self._checked(batched_inputs)
        if images.dim() == 5:
            return self._videos(images, batched_inputs.get(kfg.ATT_MASKS))
        cells = self._grid(self._pixels(images))
        x = self._tokens(cells)
        if self.g_embeddings is not None:
            x = torch.cat([self._global_token(cells.mean(dim=(1, 2))), x], dim=1)
        x = self._finish(x)
        visible = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return {kfg.ATT_FEATS: x, kfg.ATT_MASKS: visible}

    def _videos(self, videos: Tensor, masks: Tensor | None) -> dict[str, Tensor]:
        if masks is None:
            masks = torch.ones(videos.shape[:2], dtype=torch.bool, device=videos.device)
        masks = masks.bool()
        cells = self._frame_cells(videos[masks])
        x = self._tokens(cells)
        if self.embeddings_time is not None:
            count = masks.sum(1, keepdim=True).clamp(min=1)
            times = ((masks.cumsum(1) - 0.5) / count).to(x.dtype)
            x = x + self.embeddings_time(times[masks].unsqueeze(1)).unsqueeze(1)
        x = self._finish(x)
        placed = x.new_zeros(*masks.shape, *x.shape[1:])
        placed[masks] = x
        feats, visible = placed.flatten(1, 2), masks.repeat_interleave(x.shape[1], dim=1)
        if self.g_embeddings is not None:
            means = cells.new_zeros(*masks.shape, cells.shape[-1])
            means[masks] = cells.mean(dim=(1, 2))
            means = means.sum(1) / masks.sum(1, keepdim=True).clamp(min=1)
            feats = torch.cat([self._finish(self._global_token(means)), feats], dim=1)
            visible = torch.cat([masks.any(1, keepdim=True), visible], dim=1)
        return {kfg.ATT_FEATS: feats, kfg.ATT_MASKS: visible}

    def _frame_cells(self, frames: Tensor) -> Tensor:
        """(n, g, g, C): means of the feature map's cells, or the map itself, of n frames."""
        learns = torch.is_grad_enabled() and not self.frozen
        size = max(1, len(frames)) if learns else self.frames_at_a_time
        parts = []
        for part in frames.split(size):
            cells = self._grid(self._pixels(part))
            if self.frame_grid:
                channels_first = cells.permute(0, 3, 1, 2)
                pooled = nn.functional.adaptive_avg_pool2d(channels_first, self.frame_grid)
                cells = pooled.permute(0, 2, 3, 1)
            parts.append(cells)
        return torch.cat(parts)

    def _tokens(self, cells: Tensor) -> Tensor:
        """(n, cells, D) from (n, height, width, C)."""
        x = self.embeddings(cells.flatten(1, 2))
        if self.embeddings_pos is not None:
            boxes = cell_boxes(*cells.shape[1:3], x.device)
            x = x + self.embeddings_pos(boxes.to(x.dtype))
        return x

    def _global_token(self, mean_cell: Tensor) -> Tensor:
        """(n, 1, D) from (n, C)."""
        x = self.g_embeddings(mean_cell).unsqueeze(1)
        if self.embeddings_pos is not None:
            x = x + self.embeddings_pos(x.new_tensor([[0.0, 0.0, 1.0, 1.0, 1.0]]))
        return x

    def _finish(self, x: Tensor) -> Tensor:
        for layer in (self.embeddings_act, self.embeddings_norm, self.embeddings_dropout):
            if layer is not None:
                x = layer(x)
        return x

    def _checked(self, batched_inputs: dict[str, Any]) -> Tensor:
        images = batched_inputs.get(kfg.IMAGES)
        channels = self.mean.shape[1]
        if images is None or images.dim() not in (4, 5) or images.shape[-3] != channels:
            found = "is missing" if images is None else f"has shape {tuple(images.shape)}"
            raise UserError(
                f"{kfg.IMAGES} {found}; TimmEmbedding reads pictures (B, {channels}, height, "
                f"width) or videos (B, frames, {channels}, height, width), uint8 or float in [0, 1]"
            )
        return images

    def _pixels(self, images: Tensor) -> Tensor:
        pixels = images.to(self.mean.dtype)
        if not images.is_floating_point():
            pixels = pixels / 255
        return (pixels - self.mean) / self.std

    def _grid(self, pixels: Tensor) -> Tensor:
        """(B, height, width, C): the feature map."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            cells = self.backbone(pixels.contiguous(memory_format=torch.channels_last))[-1]
        return cells if self.channels_last else cells.permute(0, 2, 3, 1)


def cell_boxes(height: int, width: int, device: torch.device) -> Tensor:
    """Boxes of grid cells as ATT_FEATS_LOC has them.

    Returns:
        (height * width, 5): x1, y1, x2, y2 and area, each as a fraction of the picture.
    """
    top = torch.arange(height, device=device).repeat_interleave(width) / height
    left = torch.arange(width, device=device).repeat(height) / width
    area = torch.full_like(top, 1 / (height * width))
    return torch.stack([left, top, left + 1 / width, top + 1 / height, area], dim=1)
