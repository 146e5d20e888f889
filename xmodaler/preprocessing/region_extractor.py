"""Region features of pictures by a torchvision Faster R-CNN."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from xmodaler.utils.env import resolve_device
from xmodaler.utils.errors import UserError, did_you_mean

DETECTORS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
)


class RegionExtractor:
    """Salient regions of pictures (Anderson et al., CVPR 2018, section 3.1).

    Of the detector's proposals those stay that no overlapping proposal beats in at least one
    class (suppression per class) and whose best such score reaches ``min_score``; at least
    ``min_regions`` and at most ``max_regions`` of them, by score. Their features are those that
    the detector classifies them with.

    Stored: ``features`` (n, D), ``boxes`` (n, 4) in pixels (x1, y1, x2, y2), ``cls_prob`` (n,
    classes with background first), ``image_w``, ``image_h``, ``num_boxes``.

    Args:
        model_name: One of :data:`DETECTORS`.
        weights: A local weights file of it; '' for none.
        pretrained: Fetch the weights that torchvision publishes.
        min_regions: Least number of regions, if there are so many proposals.
        max_regions: Greatest number of regions.
        min_score: Score from which a region counts as salient.
        max_overlap: Intersection over union at which a proposal beats another of its class.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        UserError: An argument is impossible or the weights do not fit.
    """

    def __init__(
        self,
        model_name: str = DETECTORS[0],
        *,
        weights: str = "",
        pretrained: bool = False,
        min_regions: int = 10,
        max_regions: int = 100,
        min_score: float = 0.2,
        max_overlap: float = 0.3,
        device: str = "auto",
    ) -> None:
        if not 1 <= min_regions <= max_regions:
            raise UserError(
                f"{min_regions} to {max_regions} regions a picture are impossible; give 1 <= least "
                "<= most"
            )
        self.settings: dict[str, Any] = {
            "model": model_name,
            "weights": weights,
            "pretrained": pretrained,
            "regions": [min_regions, max_regions, min_score, max_overlap],
        }
        self.min_regions, self.max_regions = min_regions, max_regions
        self.min_score, self.max_overlap = min_score, max_overlap
        self.device = resolve_device(device)
        self.detector = _detector(model_name, weights, pretrained).eval().to(self.device)

    def prepare(self, picture: Image.Image) -> Tensor:
        """A picture as the detector takes it: float (3, height, width) in [0, 1]."""
        pixels = torch.from_numpy(np.asarray(picture).copy())
        return pixels.permute(2, 0, 1).float() / 255

    def pictures(self, pictures: Sequence[Tensor]) -> list[dict[str, np.ndarray] | UserError]:
        """The arrays to store for each of a batch of prepared pictures, or what went wrong."""
        return [self._picture(picture) for picture in pictures]

    @torch.inference_mode()
    def _picture(self, picture: Tensor) -> dict[str, np.ndarray] | UserError:
        height, width = picture.shape[-2:]
        images, _ = self.detector.transform([picture.to(self.device)])
        maps = self.detector.backbone(images.tensors)
        (proposals,), _ = self.detector.rpn(images, maps)
        heads = self.detector.roi_heads
        pooled = heads.box_roi_pool(maps, [proposals], images.image_sizes)
        features = heads.box_head(pooled)
        probabilities = heads.box_predictor(features)[0].softmax(dim=-1)
        chosen = self._salient(proposals, probabilities)
        if not len(chosen):
            return UserError("the detector proposes no region")
        scaled_height, scaled_width = images.image_sizes[0]
        scale = proposals.new_tensor([width / scaled_width, height / scaled_height] * 2)
        limits = proposals.new_tensor([width, height] * 2)
        boxes = torch.minimum(proposals[chosen] * scale, limits)
        return {
            "features": features[chosen].flatten(1).float().cpu().numpy(),
            "boxes": boxes.float().cpu().numpy(),
            "cls_prob": probabilities[chosen].float().cpu().numpy(),
            "image_w": np.array([width]),
            "image_h": np.array([height]),
            "num_boxes": np.array([len(chosen)]),
        }

    def _salient(self, boxes: Tensor, probabilities: Tensor) -> Tensor:
        """Indices of the chosen proposals, best first."""
        from torchvision.ops import nms

        best = boxes.new_zeros(len(boxes))
        for scores in probabilities[:, 1:].unbind(dim=1):
            kept = nms(boxes, scores, self.max_overlap)
            best[kept] = torch.maximum(best[kept], scores[kept])
        order = best.argsort(descending=True, stable=True)
        salient = int((best >= self.min_score).sum())
        return order[: min(max(salient, self.min_regions), self.max_regions)]


def _detector(name: str, weights: str, pretrained: bool) -> Any:
    from torchvision.models import get_model

    if name not in DETECTORS:
        hint = did_you_mean(name, DETECTORS) or f"; it is one of {', '.join(DETECTORS)}"
        raise UserError(f"detector '{name}' is unknown{hint}")
    if weights:
        from xmodaler.checkpoint.files import load_weights

        state = load_weights(weights)
        classes = state.get("roi_heads.box_predictor.cls_score.bias")
        if classes is None:
            raise UserError(f"'{weights}' holds no weights of a torchvision Faster R-CNN")
        model = get_model(name, weights=None, weights_backbone=None, num_classes=len(classes))
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            reason = " ".join(line.strip() for line in str(error).splitlines()[:2])
            raise UserError(f"'{weights}' does not fit '{name}': {reason}") from None
        return model
    return get_model(name, weights="DEFAULT" if pretrained else None, weights_backbone=None)
