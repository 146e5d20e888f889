"""Getting by with less device memory."""

import functools
import logging
from collections.abc import Callable
from typing import Any, TypeVar

import torch

from xmodaler.functional.trees import map_tensors

__all__ = ["retry_if_cuda_oom"]

Result = TypeVar("Result")


def retry_if_cuda_oom(func: Callable[..., Result]) -> Callable[..., Result]:
    """Make a function survive running out of CUDA memory.

    It is called as is; on an out-of-memory error once more after the cache is emptied; and at
    last with every tensor among its arguments moved to the CPU, where its results then are.

    Args:
        func: A function of tensors that also works on the CPU. It is called again from the
            start, so it must not have lasting effects.

    Returns:
        The guarded function.
    """

    @functools.wraps(func)
    def wrapped(*args: Any, **kwargs: Any) -> Result:
        try:
            return func(*args, **kwargs)
        except torch.cuda.OutOfMemoryError:
            pass
        # Outside the handlers: a live exception would keep the frames and their tensors.
        torch.cuda.empty_cache()
        try:
            return func(*args, **kwargs)
        except torch.cuda.OutOfMemoryError:
            pass
        logging.getLogger(__name__).info(
            "Out of CUDA memory: trying %s again with its inputs on the CPU",
            getattr(func, "__qualname__", func),
        )
        args, kwargs = map_tensors(lambda tensor: tensor.cpu(), (args, kwargs))
        return func(*args, **kwargs)

    return wrapped
