"""``configurable``: build an object from a config or from explicit arguments alike."""

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any

from yacs.config import CfgNode as _YacsCfgNode

from .config import CfgNode


def configurable(
    init_func: Callable[..., None] | None = None,
    *,
    from_config: Callable[..., dict[str, Any]] | None = None,
) -> Callable[..., Any]:
    """Decorate ``__init__`` or a function so that it also accepts a config.

    On a class, a classmethod ``from_config(cls, cfg, ...)`` returns the keyword arguments of
    ``__init__``::

        class Encoder:
            @configurable
            def __init__(self, width, depth=2): ...

            @classmethod
            def from_config(cls, cfg):
                return {"width": cfg.MODEL.ENCODER_DIM}

        Encoder(width=8)        # explicit
        Encoder(cfg)            # through from_config
        Encoder(cfg, depth=3)   # explicit keywords win

    On a function, ``from_config`` is given to the decorator::

        @configurable(from_config=lambda cfg, depth=2: {"width": cfg.WIDTH, "depth": depth})
        def build(width, depth): ...

    A call counts as "with a config" when its first argument, or the keyword ``cfg``, is a
    ``CfgNode`` (of this package, fvcore or yacs) or an omegaconf ``DictConfig``. Further
    arguments go to ``from_config`` where it names them; all others override what it returns.

    Raises:
        AttributeError: The class has no ``from_config`` classmethod.
        TypeError: The first parameter of ``from_config`` is not called ``cfg``.
    """
    if init_func is not None:
        if from_config is not None or not inspect.isfunction(init_func):
            raise TypeError("Use @configurable on __init__, or @configurable(from_config=...)")
        if init_func.__name__ != "__init__":
            raise TypeError(
                f"@configurable on the function '{init_func.__name__}' needs from_config=..."
            )
        return _wrap_init(init_func)
    if from_config is None:
        # Written as `@configurable()`.
        return configurable
    if not inspect.isfunction(from_config):
        raise TypeError("from_config of @configurable must be a plain function")
    return functools.partial(_wrap_function, from_config=from_config)


def _wrap_init(init_func: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(init_func)
    def wrapped(self: Any, *args: Any, **kwargs: Any) -> None:
        # Looked up on the type of the object: a subclass brings its own.
        translate = getattr(type(self), "from_config", None)
        if translate is None:
            raise AttributeError("Class with @configurable must have a 'from_config' classmethod.")
        if not inspect.ismethod(translate):
            raise TypeError("Class with @configurable must have a 'from_config' classmethod.")
        if _called_with_cfg(*args, **kwargs):
            init_func(self, **_explicit_args(translate, *args, **kwargs))
        else:
            init_func(self, *args, **kwargs)

    return wrapped


def _wrap_function(
    function: Callable[..., Any], from_config: Callable[..., dict[str, Any]]
) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        if _called_with_cfg(*args, **kwargs):
            return function(**_explicit_args(from_config, *args, **kwargs))
        return function(*args, **kwargs)

    wrapped.from_config = from_config
    return wrapped


def _explicit_args(
    from_config: Callable[..., dict[str, Any]], *args: Any, **kwargs: Any
) -> dict[str, Any]:
    """Keyword arguments for the explicit call, made by ``from_config``."""
    parameters = inspect.signature(from_config).parameters
    if next(iter(parameters), None) != "cfg":
        owner = getattr(from_config, "__self__", None)
        name = f"{owner.__name__}.from_config" if inspect.isclass(owner) else "from_config"
        raise TypeError(f"{name} must take 'cfg' as the first argument!")
    takes_anything = any(
        parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in parameters.values()
    )
    if takes_anything:
        return from_config(*args, **kwargs)
    own = {name: value for name, value in kwargs.items() if name in parameters}
    overrides = {name: value for name, value in kwargs.items() if name not in parameters}
    return {**from_config(*args, **own), **overrides}


def _called_with_cfg(*args: Any, **kwargs: Any) -> bool:
    first = args[0] if args else kwargs.get("cfg")
    return is_config(first)


def is_config(value: Any) -> bool:
    """Whether ``value`` is a config: a ``CfgNode`` or an omegaconf ``DictConfig``.

    omegaconf is not imported for the question: a ``DictConfig`` can only exist once it is.
    """
    if isinstance(value, (CfgNode, _YacsCfgNode)):
        return True
    omegaconf = sys.modules.get("omegaconf")
    return omegaconf is not None and isinstance(value, omegaconf.DictConfig)
