"""The few best of many words."""

import torch
from torch import Tensor

#: Words compared as one; near the square root of usual vocabularies, where both stages are short.
CHUNK = 100


def top_words(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The best words of every row, best first.

    On a CPU ``topk`` goes through a row word by word. The best words lie in the chunks whose
    maxima are best, and maxima are vectorised, so only those chunks are gone through.

    Args:
        scores: (R, V).
        count: Words wanted, at most V.

    Returns:
        Scores and words, (R, count) each.
    """
    num_rows, num_words = scores.shape
    num_chunks = num_words // CHUNK
    if scores.device.type != "cpu" or 2 * count >= num_chunks:
        return scores.topk(count, dim=1)
    whole = num_chunks * CHUNK
    chunks = scores[:, :whole].unflatten(1, (num_chunks, CHUNK))
    best = chunks.detach().amax(dim=2).topk(count, dim=1).indices.unsqueeze(2)
    words = best * CHUNK + torch.arange(CHUNK)
    rest = torch.arange(whole, num_words).expand(num_rows, -1)
    words = torch.cat([words.flatten(1), rest], dim=1)
    top, places = scores.gather(1, words).topk(count, dim=1)
    return top, words.gather(1, places)
