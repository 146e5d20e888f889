"""Embedding of pictures by a vision backbone of the timm library."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from xmodaler.config import CfgNode, configurable, kfg
from xmodaler.utils.errors import MissingDependencyError, UserError, did_you_mean

from .build import EMBEDDING_REGISTRY
from .visual_embed import visual_layers

_ARGS = "MODEL.TIMM.ARGS"


@EMBEDDING_REGISTRY.register()
class TimmEmbedding(nn.Module):
    """From pixels to region-like tokens: ``dropout(norm(act(W cell + W_box box)))`` per grid cell.

    The last feature map of the backbone (or an earlier, finer one) is a grid of cells. With a
    location layer, each cell's box is embedded too, which tells the cells where they are. With a
    global token, the mean cell goes in front of the grid through a Linear of its own.

    The backbone's pixel statistics are buffers of this module, so that they are saved with the
    model. A frozen backbone runs without gradients and with its norms in eval mode.

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
    """

    reads_pictures = True

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
    ) -> None:
        super().__init__()
        self.backbone = backbone
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
            **_keyword_args(node.ARGS),
        )
        statistics = backbone.pretrained_cfg
        return {
            "backbone": backbone,
            "out_dim": cfg.MODEL.VISUAL_EMBED.OUT_DIM,
            "mean": statistics["mean"],
            "std": statistics["std"],
            "frozen": node.FROZEN,
            "global_token": node.GLOBAL_TOKEN,
            **visual_layers(cfg),
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
        """ATT_FEATS (B, N, D) and ATT_MASKS (B, N), all True, from IMAGES.

        IMAGES is (B, 3, height, width), uint8 or float in [0, 1]; N is the number of cells, plus
        one with a global token. Cells go row by row.
        """
        cells = self._grid(self._pixels(batched_inputs))
        height, width = cells.shape[1:3]
        x = self.embeddings(cells.flatten(1, 2))
        boxes = cell_boxes(height, width, x.device).to(x.dtype)
        if self.g_embeddings is not None:
            x = torch.cat([self.g_embeddings(cells.mean(dim=(1, 2))).unsqueeze(1), x], dim=1)
            whole = boxes.new_tensor([[0.0, 0.0, 1.0, 1.0, 1.0]])
            boxes = torch.cat([whole, boxes])
        if self.embeddings_pos is not None:
            x = x + self.embeddings_pos(boxes)
        for layer in (self.embeddings_act, self.embeddings_norm, self.embeddings_dropout):
            if layer is not None:
                x = layer(x)
        visible = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return {kfg.ATT_FEATS: x, kfg.ATT_MASKS: visible}

    def _pixels(self, batched_inputs: dict[str, Any]) -> Tensor:
        images = batched_inputs.get(kfg.IMAGES)
        channels = self.mean.shape[1]
        if images is None or images.dim() != 4 or images.shape[1] != channels:
            found = "is missing" if images is None else f"has shape {tuple(images.shape)}"
            raise UserError(
                f"{kfg.IMAGES} {found}; TimmEmbedding reads pictures (B, {channels}, height, "
                "width), uint8 or float in [0, 1]"
            )
        pixels = images.to(self.mean.dtype)
        if not images.is_floating_point():
            pixels = pixels / 255
        return (pixels - self.mean) / self.std

    def _grid(self, pixels: Tensor) -> Tensor:
        """(B, height, width, C): the feature map."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            cells = self.backbone(pixels)[-1]
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


def build_backbone(
    name: str,
    *,
    pretrained: bool = False,
    weights: str = "",
    out_index: int = -1,
    image_size: int | None = None,
    **arguments: Any,
) -> nn.Module:
    """A timm model cut off after one of its feature maps.

    Args:
        name: A timm model name, with or without a tag.
        pretrained: Whether to fetch the weights of that name from the model hub.
        weights: A local weights file of that model (with or without its classifier).
        out_index: Which feature map; -1 is the last, later layers are dropped.
        image_size: Passed to models whose input size is fixed when they are built.
        **arguments: Further arguments of ``timm.create_model``.

    Raises:
        UserError: timm does not know the name or an argument, or the file does not fit.
    """
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            "TimmEmbedding needs the library timm; install it with `pip install timm`"
        ) from error
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise UserError(f"MODEL.TIMM.MODEL_NAME '{name}' is no timm model{hint}")
    fixed_size = timm.get_pretrained_cfg(name) and timm.get_pretrained_cfg(name).fixed_input_size
    if image_size and fixed_size:
        arguments.setdefault("img_size", image_size)
    if weights:
        pretrained = True
        state = _backbone_weights(name, weights, arguments)
        arguments["pretrained_cfg_overlay"] = {"state_dict": state}
    try:
        return timm.create_model(
            name, pretrained=pretrained, features_only=True, out_indices=(out_index,), **arguments
        )
    except (TypeError, IndexError, AssertionError, RuntimeError) as error:
        # torch lists every tensor that does not fit; the first says enough.
        reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
        source = f"MODEL.TIMM.WEIGHTS '{weights}'" if weights else f"MODEL.TIMM.OUT_INDEX, {_ARGS}"
        raise UserError(f"timm cannot build '{name}' ({reason}); check {source}") from error


def _backbone_weights(name: str, path: str, arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of a weights file, which must cover the backbone."""
    import timm

    from xmodaler.checkpoint.files import load_weights

    state = dict(load_weights(path))
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    missing = sorted(set(model.state_dict()) - set(state))
    if missing:
        raise UserError(
            f"MODEL.TIMM.WEIGHTS '{path}' holds no weights of '{name}': it lacks {len(missing)} of "
            f"its tensors, {missing[0]} first; give a timm weights file of that model"
        )
    return state


def _keyword_args(flat: Sequence[Any]) -> dict[str, Any]:
    """``[KEY, VALUE, ...]`` as a dict."""
    keys = list(flat[::2])
    if len(flat) % 2 or not all(isinstance(key, str) for key in keys):
        raise UserError(f"{_ARGS} is {list(flat)}; it must be a flat list [KEY, VALUE, ...]")
    return dict(zip(keys, flat[1::2], strict=True))
