"""The inner part of X-linear attention: from joint features to pooled ones."""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .packing import Packing, unpack_or_keep

if TYPE_CHECKING:
    from .low_rank_bilinear import BilinearScores

_HIDDEN_SCORE = -1e9


class Regions(NamedTuple):
    """Projected regions of B images.

    Attributes:
        keys: (B, N, D), or (count, D) with ``packing``.
        values: Likewise.
        visible: (B, N) bool, or None when every region is real.
        packing: Which regions are there, all of them visible.
    """

    keys: Tensor
    values: Tensor
    visible: Tensor | None = None
    packing: Packing | None = None

    @property
    def images(self) -> int:
        """B."""
        return len(self.keys) if self.packing is None else self.packing.rows

    def padded(self) -> "Regions":
        """The same with (B, N, D)."""
        keys, values = (unpack_or_keep(part, self.packing) for part in self[:2])
        return Regions(keys, values, self.visible)

    def by_image(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """Keys and values (n, D) of each image without the padding behind its last region.

        The third entry tells which of the n are visible, (n,) bool; it is None where all are.
        """
        if self.packing is not None:
            owner = self.packing.index // self.packing.length
            counts = torch.bincount(owner, minlength=self.packing.rows).tolist()
            pairs = zip(self.keys.split(counts), self.values.split(counts), strict=True)
            return [(*pair, None) for pair in pairs]
        if self.visible is None:
            return [(*pair, None) for pair in zip(self.keys, self.values, strict=True)]
        position = torch.arange(1, self.visible.shape[1] + 1)
        reach = (self.visible * position).amax(dim=1)
        gaps = (reach != self.visible.sum(dim=1)).tolist()
        return [
            (keys[:n], values[:n], seen[:n] if gap else None)
            for keys, values, seen, n, gap in zip(
                self.keys, self.values, self.visible, reach.tolist(), gaps, strict=True
            )
        ]


class Pooled(NamedTuple):
    """What G queries take from the N regions of their image.

    Attributes:
        hidden: (B, G, heads, mid), the mean of a_n over visible regions.
        context: (B, G, D), the weighted sum of the values.
        weights: (B, G, N, heads), or None where nobody asked.
    """

    hidden: Tensor
    context: Tensor
    weights: Tensor | None


def pool(
    net: "BilinearScores", query: Tensor, regions: Regions, need_weights: bool = False
) -> Pooled:
    """Weigh regions by features that they and the queries have in common.

    Args:
        net: What makes a_n of the joint features, and scores of a_n.
        query: (B, G, D).
        regions: Of the B images.
        need_weights: The weights are wanted.
    """
    on_cpu = query.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if on_cpu and not (torch.is_grad_enabled() or net.training or need_weights):
        return _pool_by_image(net, query, regions)
    keys, values, visible, _ = regions.padded()
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
        pooled = (share[:, None, None] @ hidden.flatten(3)).squeeze(2)
        pooled = pooled.unflatten(-1, (-1, hidden.shape[-1]))
        scores = scores.masked_fill(~visible[:, None, :, None], _HIDDEN_SCORE)
        # An image without regions would spread its weight over the padding.
        weights = torch.softmax(scores, dim=2) * real[:, None, :, None]
    context = weights.permute(0, 3, 1, 2) @ values.unflatten(-1, (-1, head)).transpose(1, 2)
    return Pooled(pooled, context.transpose(1, 2).flatten(2), weights)


def _pool_by_image(net: "BilinearScores", query: Tensor, regions: Regions) -> Pooled:
    """As :func:`pool`, image by image: what is in between stays in the cache."""
    images, groups, width = query.shape
    head, mid = net.attention_last2.out_features, net.attention_last.in_features
    heads = width // head
    score = net.attention_last.weight[0]  # a bias would change all scores alike
    pooled = query.new_zeros(images, groups, heads * mid)
    context = query.new_zeros(images, heads, groups, head)
    for image, (keys, values, seen) in enumerate(regions.by_image()):
        count = len(keys)
        if count == 0:
            continue
        hidden = net.hidden((query[image].unsqueeze(1) * keys).view(-1, head))
        scores = torch.mv(hidden, score).view(groups, count, heads).permute(2, 0, 1)
        hidden = hidden.view(groups, count, heads * mid)
        if seen is None:
            torch.mean(hidden, dim=1, out=pooled[image])
        else:
            pooled[image] = hidden[:, seen].mean(dim=1)
            scores = scores.masked_fill(~seen, _HIDDEN_SCORE)
        weights = torch.softmax(scores.contiguous(), dim=-1)
        torch.bmm(weights, values.view(count, heads, head).transpose(0, 1), out=context[image])
    return Pooled(pooled.unflatten(-1, (heads, mid)), context.transpose(1, 2).flatten(2), None)
