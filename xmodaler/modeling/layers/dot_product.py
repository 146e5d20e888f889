"""Multi-head scaled dot-product attention over grouped queries."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xmodaler.utils.errors import UserError

from .grouping import queries_per_image


def check_heads(width: int, num_heads: int, where: str) -> None:
    """Refuse a width that the heads cannot share equally."""
    if num_heads < 1 or width % num_heads:
        raise UserError(
            f"{where}: a width of {width} does not divide over {num_heads} attention heads; "
            "choose a number of heads that divides it"
        )


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, T, D) -> (B, heads, T, D / heads), a view."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, T, d) -> (B, T, heads * d)."""
    return x.transpose(1, 2).flatten(2)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K^T / sqrt(d) + mask) V, per head (Vaswani et al. 2017, section 3.2.1).

    Args:
        query: (B, heads, Tq, d).
        key: (B, heads, Tk, d).
        value: (B, heads, Tk, d).
        mask: Additive, broadcastable to (B, heads, Tq, Tk); cast to the query's dtype.
        dropout: Probability of dropping an attention weight.
        need_weights: Compute the weights explicitly and return them too.

    Returns:
        The context (B, Tq, heads * d), and the weights (B, heads, Tq, Tk) or None.
    """
    if mask is not None and mask.dtype != query.dtype:
        mask = mask.to(query.dtype)
    if not need_weights:
        context = F.scaled_dot_product_attention(query, key, value, mask, dropout_p=dropout)
        return merge_heads(context), None
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    weights = torch.softmax(scores if mask is None else scores + mask, dim=-1)
    dropped = F.dropout(weights, dropout) if dropout > 0 else weights
    return merge_heads(dropped @ value), weights


def attend_images(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    mask: Tensor | None = None,
    dropout: float = 0.0,
    need_weights: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As :func:`attend`, from the G texts of every image to what the image has.

    Args:
        query: (B * G, T, D) or (B * G, D), projected.
        keys: (B, heads, N, D / heads).
        values: As ``keys``.
        mask: Additive (B, 1, 1, N).
        dropout: Probability of dropping an attention weight.
        need_weights: Return the weights too.

    Returns:
        The context, shaped like ``query``, and the weights (B, heads, G * T, N) or None.
    """
    images, num_heads = keys.shape[:2]
    queries_per_image(query.shape[0], images)
    folded = split_heads(query.reshape(images, -1, query.shape[-1]), num_heads)
    context, weights = attend(folded, keys, values, mask, dropout, need_weights)
    return context.reshape(query.shape), weights


def for_many_steps(keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, heads, N, d) as decoding wants them: head by head in memory."""
    if torch.is_grad_enabled():
        return keys, values
    return keys.contiguous(), values.contiguous()
