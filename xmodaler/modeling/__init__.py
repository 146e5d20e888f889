"""Models: the stages, and the two calls that turn a config into a model."""

from .meta_arch import add_config, build_model

__all__ = ["add_config", "build_model"]
