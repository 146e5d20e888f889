"""The inner part of X-linear attention: from joint features to pooled ones."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .low_rank_bilinear import BilinearScores

_HIDDEN_SCORE = -1e9


class Pooled(NamedTuple):
    """What G queries take from the N regions of their image.

    Attributes:
        hidden: (B, G, heads, mid), the mean of a_n over visible regions.
        context: (B, G, D), the weighted sum of the values.
        weights: (B, G, N, heads).
    """

    hidden: Tensor
    context: Tensor
    weights: Tensor


def pool(
    net: "BilinearScores", query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None
) -> Pooled:
    """Weigh regions by features that they and the queries have in common.

    Args:
        net: What makes a_n of the joint features, and scores of a_n.
        query: (B, G, D).
        keys: (B, N, D).
        values: (B, N, D).
        visible: (B, N) bool, or None when every region is real.
    """
    if query.device.type == "cpu" and not torch.is_grad_enabled() and not net.training:
        return _pool_by_image(net, query, keys, values, visible)
    head = net.attention_last2.out_features
    joint = (query.unsqueeze(2) * keys.unsqueeze(1)).unflatten(-1, (-1, head))
    hidden = net.hidden(joint)  # (B, G, N, heads, mid)
    scores = net.attention_last(hidden).squeeze(-1)
    if visible is None:
        pooled = hidden.mean(dim=2)
        weights = torch.softmax(scores, dim=2)
    else:
        real = visible.to(hidden.dtype)
        share = real / real.sum(dim=1, keepdim=True).clamp(min=1)
        pooled = (
            (share[:, None, None] @ hidden.flatten(3))
            .squeeze(2)
            .unflatten(-1, (-1, hidden.shape[-1]))
        )
        scores = scores.masked_fill(~visible[:, None, :, None], _HIDDEN_SCORE)
        # An image without regions would spread its weight over the padding.
        weights = torch.softmax(scores, dim=2) * real[:, None, :, None]
    context = weights.permute(0, 3, 1, 2) @ values.unflatten(-1, (-1, head)).transpose(1, 2)
    return Pooled(pooled, context.transpose(1, 2).flatten(2), weights)


def _pool_by_image(
    net: "BilinearScores", query: Tensor, keys: Tensor, values: Tensor, visible: Tensor | None
) -> Pooled:
    """As :func:`pool`, image by image, so that what is in between stays in the cache.

    Regions behind the last visible one are left out.
    """
    images, groups, width = query.shape
    regions, mid = keys.shape[1], net.attention_last.in_features
    head = net.attention_last2.out_features
    heads = width // head
    counts = [regions] * images
    if visible is not None:
        position = torch.arange(1, regions + 1)
        counts = (visible * position).amax(dim=1).tolist()
    pooled = query.new_zeros(images, groups, heads * mid)
    context = query.new_zeros(images, groups, heads, head)
    weights = query.new_zeros(images, groups, regions, heads)
    for image, count in enumerate(counts):
        if count == 0:
            continue
        one = slice(image, image + 1)
        joint = (query[image].unsqueeze(1) * keys[image, :count]).view(-1, head)
        hidden = net.hidden(joint)
        scores = net.attention_last(hidden).view(groups, count, heads)
        seen = None if visible is None else visible[one, :count]
        hidden = hidden.view(groups, count, heads * mid)
        if seen is None or bool(seen.all()):
            torch.mean(hidden, dim=1, out=pooled[image])
        else:
            share = seen.to(hidden.dtype) / seen.sum()
            pooled[image] = (share @ hidden).squeeze(1)
            scores = scores.masked_fill(~seen.unsqueeze(-1), _HIDDEN_SCORE)
        weights[image, :, :count] = given = torch.softmax(scores, dim=1)
        value = values[image, :count].view(count, heads, head)
        context[image] = (given.permute(2, 0, 1) @ value.transpose(0, 1)).transpose(0, 1)
    return Pooled(pooled.unflatten(-1, (heads, mid)), context.flatten(2), weights)
