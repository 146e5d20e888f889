"""Name -> object registries: the mechanism by which a config names its parts."""

import importlib
from collections.abc import Callable, Iterator
from typing import Any

from .errors import UserError, did_you_mean, nearest


class RegistryKeyError(UserError, KeyError):
    """A name that a registry does not hold."""


class Registry:
    """A mapping from names to classes or functions.

    Registering works as a decorator or as a call, and the key is the object's ``__name__``::

        ENCODER_REGISTRY = Registry("ENCODER")

        @ENCODER_REGISTRY.register()
        class MyEncoder: ...

        ENCODER_REGISTRY.register(OtherEncoder)

    Args:
        name: The name of the registry in messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The name of the registry in messages."""
        return self._name

    def register(self, obj: Any = None) -> Any:
        """Register ``obj``, or return a decorator that registers.

        Raises:
            AssertionError: The name is taken by another object.
        """
        if obj is None:
            return self._add
        return self._add(obj)

    def _add(self, obj: Any) -> Any:
        name = obj.__name__
        # An assertion by contract: user code that catches the duplicate expects AssertionError.
        if name in self._objects:
            raise AssertionError(
                f"An object named '{name}' was already registered in '{self._name}' registry!"
            )
        self._objects[name] = obj
        return obj

    def get(self, name: str) -> Any:
        """The object registered under ``name``.

        A dotted ``package.module.Class`` that is not registered is imported; its own name may
        be registered by that import or not.

        Raises:
            RegistryKeyError: (a KeyError) nothing of that name exists; the message names the
                nearest registered name.
        """
        if name in self._objects:
            return self._objects[name]
        message = f"No object named '{name}' found in '{self._name}' registry!"
        if isinstance(name, str) and "." in name:
            found = locate(name)
            if found is not None:
                return found
            raise RegistryKeyError(
                f"{message} A dotted name must be an importable 'package.module.Class'."
            )
        if not isinstance(name, str) or nearest(name, self._objects) is None:
            known = ", ".join(sorted(self._objects)) or "nothing yet"
            raise RegistryKeyError(f"{message} Registered: {known}.")
        raise RegistryKeyError(message[:-1] + did_you_mean(name, self._objects))

    def __contains__(self, name: str) -> bool:
        return name in self._objects

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(self._objects.items())

    def __len__(self) -> int:
        return len(self._objects)

    def __repr__(self) -> str:
        from tabulate import tabulate

        table = tabulate(self._objects.items(), headers=["Names", "Objects"], tablefmt="pipe")
        return f"Registry of {self._name}:\n{table}"

    __str__ = __repr__


def locate(name: str) -> Callable[..., Any] | Any | None:
    """The object of a dotted path such as ``torch.nn.Linear``, or None when there is none.

    The longest importable prefix is taken as the module and the rest as attributes, so nested
    classes work. An error raised by an existing module while it is imported is not hidden.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    for split in range(len(parts), 0, -1):
        module_name = ".".join(parts[:split])
        try:
            found = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is not None and _is_prefix(error.name, module_name):
                continue
            raise
        for attribute in parts[split:]:
            if not hasattr(found, attribute):
                return None
            found = getattr(found, attribute)
        return found
    return None


def _is_prefix(missing: str, module_name: str) -> bool:
    return module_name == missing or module_name.startswith(missing + ".")
