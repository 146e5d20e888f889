"""The weights that BERT starts from."""

from collections.abc import Iterator

from torch import nn


def init_like_bert(model: nn.Module, std: float) -> None:
    """Draw the weights of Linears and embeddings from a truncated normal; their biases become 0.

    As BERT is initialised (Devlin et al. 2019, with a deviation of 0.02). Torch's own embeddings
    have a deviation of 1, from which a deep post-norm Transformer hardly learns.

    Args:
        model: Changed in place. Parts that a module names in ``pretrained_parts`` are left alone.
        std: The deviation; values beyond two of them are drawn again. A module with an
            ``init_std`` above 0 sets that of all it holds.
    """
    for module, own in _own_modules(model, std):
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.trunc_normal_(module.weight, std=own, a=-2 * own, b=2 * own)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _own_modules(module: nn.Module, std: float) -> Iterator[tuple[nn.Module, float]]:
    std = getattr(module, "init_std", 0.0) or std
    yield module, std
    kept = getattr(module, "pretrained_parts", ())
    for name, child in module.named_children():
        if name not in kept:
            yield from _own_modules(child, std)
