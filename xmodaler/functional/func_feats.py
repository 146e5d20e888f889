"""Small operations on batches of features: converting, padding, repeating, cutting, masking."""

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from xmodaler.utils.env import resolve_device

from .trees import to_device

_REGION_MASK_PROBABILITY = 0.15
_REGION_ZERO_PROBABILITY = 0.9
_REGION_OVERLAP = 0.4


def flat_list_of_lists(l: Sequence[Sequence[Any]]) -> list[Any]:  # noqa: E741 (public name)
    """``[[a, b], [c]]`` -> ``[a, b, c]``: one level of nesting removed."""
    return [item for inner in l for item in inner]


def pad_tensor(
    tensor: Sequence[Any], padding_value: float, use_mask: bool
) -> Tensor | tuple[Tensor, Tensor]:
    """Pad tensors to the longest along their first dimension and stack them.

    Args:
        tensor: n tensors (len_i, ...), or lists of such, whose one level of nesting is removed.
        padding_value: What fills the rest.
        use_mask: Whether to return a mask too.

    Returns:
        (n, max, ...) tensor; with ``use_mask`` also (n, max) float32, 1 up to each length. The
        mask speaks of lengths only: a padding id inside a tensor counts as real.
    """
    items = list(tensor)
    if items and isinstance(items[0], list | tuple):
        items = flat_list_of_lists(items)
    padded = pad_sequence(items, batch_first=True, padding_value=padding_value)
    if not use_mask:
        return padded
    lengths = torch.tensor([item.shape[0] for item in items])
    positions = torch.arange(padded.shape[1])
    mask = (positions.unsqueeze(0) < lengths.unsqueeze(1)).to(torch.float32)
    return padded, mask.to(padded.device)


def dict_as_tensor(input_dict: dict[str, Any]) -> dict[str, Any]:
    """Convert the values of a sample to tensors, in place.

    Strings and lists of strings are left alone; a list becomes a list of tensors; everything
    else goes through :func:`torch.as_tensor`.

    Args:
        input_dict: A sample.

    Returns:
        The same dict.
    """
    for key, value in input_dict.items():
        if isinstance(value, str):
            continue
        if isinstance(value, list):
            input_dict[key] = [v if isinstance(v, str) else _as_tensor(v) for v in value]
        else:
            input_dict[key] = _as_tensor(value)
    return input_dict


def _as_tensor(value: Any) -> Tensor:
    # Annotation files hold uint32 ids, for which torch has next to no operations.
    if isinstance(value, np.ndarray) and value.dtype in (np.uint16, np.uint32, np.uint64):
        value = value.astype(np.int64)
    return torch.as_tensor(value)


def dict_to_device(input_dict: dict[str, Any], device: torch.device | str) -> dict[str, Any]:
    """Move every tensor of a batch to a device, in place.

    Args:
        input_dict: A batch; values may be trees of tensors, others are left alone.
        device: Where to.

    Returns:
        The same dict.
    """
    for key, value in input_dict.items():
        input_dict[key] = to_device(value, device)
    return input_dict


def dict_to_cuda(input_dict: dict[str, Any]) -> dict[str, Any]:
    """Move every tensor of a batch to the accelerator in use (cuda, mps, or else the CPU).

    The older name of :func:`dict_to_device`, kept for code that calls it.
    """
    return dict_to_device(input_dict, resolve_device("auto"))


def expand_tensor(tensor: Tensor, size: int | None, dim: int = 1) -> Tensor:
    """Repeat the rows of a tensor.

    Args:
        tensor: (n, ...) tensor.
        size: How many times; 1 or None returns the tensor itself.
        dim: 1 repeats each row consecutively (a a b b), 0 tiles the whole (a b a b).

    Returns:
        (n * size, ...) tensor.
    """
    if size is None or size == 1:
        return tensor
    if dim == 1:
        return tensor.repeat_interleave(size, dim=0)
    return tensor.repeat(size, *([1] * (tensor.dim() - 1)))


def clip_v_inputs(
    v_feats: Tensor, spatials: Tensor, image_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut regions to the greatest number that any image has.

    Args:
        v_feats: (B, N, D) features.
        spatials: (B, N, 5) locations.
        image_mask: (B, N), 1 = real region.

    Returns:
        The three, N cut to the longest mask.
    """
    longest = _longest(image_mask)
    return v_feats[:, :longest], spatials[:, :longest], image_mask[:, :longest]


def clip_t_inputs(
    input_txt: Tensor, segment_ids: Tensor, input_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Cut texts to the greatest length that any has.

    Args:
        input_txt: (B, T) token ids.
        segment_ids: (B, T) token types.
        input_mask: (B, T), 1 = real token.

    Returns:
        The three, T cut to the longest mask.
    """
    longest = _longest(input_mask)
    return input_txt[:, :longest], segment_ids[:, :longest], input_mask[:, :longest]


def _longest(mask: Tensor) -> int:
    return int(mask.sum(dim=1).max().item())


def boxes_to_locfeats(boxes: np.ndarray, image_w: float, image_h: float) -> np.ndarray:
    """Five numbers per box: its corners and its area, relative to the image.

    Args:
        boxes: (n, 4) of x1, y1, x2, y2 in pixels.
        image_w: Width of the image in pixels.
        image_h: Height of the image in pixels.

    Returns:
        (n, 5) float32: x1/w, y1/h, x2/w, y2/h, (x2 - x1)(y2 - y1) / (w h).
    """
    x1, y1, x2, y2 = np.asarray(boxes, dtype=np.float32).reshape(-1, 4).T
    width, height = np.float32(image_w), np.float32(image_h)
    area = (y2 - y1) * (x2 - x1) / (width * height)
    return np.stack([x1 / width, y1 / height, x2 / width, y2 / height, area], axis=1)


def iou(anchors: np.ndarray, gt_boxes: np.ndarray) -> np.ndarray:
    """Intersection over union of every pair of boxes, in whole pixels.

    A box covers its last pixel: width = x2 - x1 + 1 (the convention of Faster R-CNN, Ren et
    al., 2015).

    Args:
        anchors: (N, 4) of x1, y1, x2, y2.
        gt_boxes: (K, 4) of x1, y1, x2, y2.

    Returns:
        (N, K) float32 in [0, 1].
    """
    anchors = np.asarray(anchors, dtype=np.float32).reshape(-1, 1, 4)
    gt_boxes = np.asarray(gt_boxes, dtype=np.float32).reshape(1, -1, 4)
    low = np.maximum(anchors[..., :2], gt_boxes[..., :2])
    high = np.minimum(anchors[..., 2:], gt_boxes[..., 2:])
    overlap = np.clip(high - low + 1, 0, None).prod(axis=-1)
    union = _area(anchors) + _area(gt_boxes) - overlap
    return overlap / union


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2:] - boxes[..., :2] + 1).prod(axis=-1)


def random_region(
    image_feats: np.ndarray, overlaps: np.ndarray, must_mask: bool = False
) -> tuple[np.ndarray, list[int], int]:
    """Choose regions to predict and hide them, as in masked object classification.

    Each region is chosen with probability 0.15. Of the chosen, 90 % are zeroed; regions that
    overlap a chosen one by more than 0.4 are zeroed too, so that it cannot be read off them.

    Args:
        image_feats: (N, D) features, changed in place.
        overlaps: (N, N) intersection over union between the regions.
        must_mask: Whether one region is hidden even if chance chose none.

    Returns:
        The features, N labels (1 = chosen, -1 = not), and how many regions were zeroed.
    """
    labels = []
    zeroed = np.zeros(len(image_feats), dtype=bool)
    for index in range(len(image_feats)):
        draw = random.random()
        if draw >= _REGION_MASK_PROBABILITY:
            labels.append(-1)
            continue
        labels.append(1)
        # The draw that chose the region, stretched back to [0, 1), also says how.
        if draw / _REGION_MASK_PROBABILITY < _REGION_ZERO_PROBABILITY:
            zeroed[index] = True
        zeroed |= np.asarray(overlaps[index]) > _REGION_OVERLAP
    if must_mask and labels and 1 not in labels:
        index = int(np.random.randint(len(labels)))
        labels[index] = 1
        zeroed[index] = True
        zeroed |= np.asarray(overlaps[index]) > _REGION_OVERLAP
    image_feats[zeroed] = 0
    return image_feats, labels, int(zeroed.sum())
