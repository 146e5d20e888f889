"""Sending functions to other processes that plain pickle cannot send."""

from typing import Any

__all__ = ["PicklableWrapper"]


class PicklableWrapper:
    """Wraps an object so that pickling it uses cloudpickle: closures and lambdas travel too.

    Calls and attributes pass through to the object.

    Args:
        obj: The object; a wrapper is unwrapped first.
    """

    def __init__(self, obj: Any) -> None:
        self._obj = obj._obj if isinstance(obj, PicklableWrapper) else obj

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            import cloudpickle
        except ImportError:
            # Whatever plain pickle can send still travels.
            return PicklableWrapper, (self._obj,)
        return _restore, (cloudpickle.dumps(self._obj),)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._obj(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name == "_obj":
            # Asked before the object is there, while it is being unpickled.
            raise AttributeError(name)
        return getattr(self._obj, name)


def _restore(content: bytes) -> PicklableWrapper:
    import cloudpickle

    return PicklableWrapper(cloudpickle.loads(content))
