"""X²-VLM: one set of towers for many tasks."""

from .pretrain import X2VLMPretrain

__all__ = ["X2VLMPretrain"]
