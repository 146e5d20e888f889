"""The process' environment: random seeds, and a hook for custom set-up code."""

import importlib
import importlib.util
import logging
import os
import random
import sys
import time

import numpy as np
import torch

from .errors import UserError

TORCH_VERSION = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])

_SETUP_VARIABLE = "XMODALER_ENV_MODULE"
_is_set_up = False


def seed_all_rng(seed: int | None = None) -> int:
    """Seed ``random``, numpy and torch (all devices).

    Args:
        seed: Any int; None draws one from the process id, the time and the system's entropy, and
            logs it so that the run can be repeated.

    Returns:
        The seed that was used.
    """
    if seed is None:
        entropy = int.from_bytes(os.urandom(4), "little")
        seed = (os.getpid() + time.time_ns() + entropy) % 2**31
        logging.getLogger(__name__).info("Using a generated random seed %d", seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    random.seed(seed)
    return seed


def resolve_device(name: str) -> torch.device:
    """The device a config means.

    Args:
        name: ``auto`` (cuda, mps or cpu: the first there is) or any torch device, ``cuda:1``.

    Raises:
        UserError: The name is no device, or the machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(
            f"MODEL.DEVICE '{name}' is not a device; use auto, cpu, cuda or mps"
        ) from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"MODEL.DEVICE is '{name}' but no CUDA device is available; use auto or cpu"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(f"MODEL.DEVICE is '{name}' but this machine has no MPS; use auto or cpu")
    return device


def setup_environment() -> None:
    """Run the user's set-up module, once: the one named by ``$XMODALER_ENV_MODULE``, if any."""
    global _is_set_up
    if _is_set_up:
        return
    _is_set_up = True
    custom_module = os.environ.get(_SETUP_VARIABLE)
    if custom_module:
        setup_custom_environment(custom_module)


def setup_custom_environment(custom_module: str) -> None:
    """Import a module and call its ``setup_environment()``.

    Args:
        custom_module: A dotted module name or the path of a ``.py`` file.

    Raises:
        UserError: The module does not exist or has no callable ``setup_environment``.
    """
    if custom_module.endswith(".py"):
        spec = importlib.util.spec_from_file_location("xmodaler_custom_environment", custom_module)
        if spec is None or spec.loader is None or not os.path.isfile(custom_module):
            raise UserError(f"Environment module '{custom_module}' does not exist")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        try:
            module = importlib.import_module(custom_module)
        except ModuleNotFoundError as error:
            raise UserError(f"Environment module '{custom_module}' cannot be imported") from error
    if not callable(getattr(module, "setup_environment", None)):
        raise UserError(f"Environment module '{custom_module}' has no setup_environment()")
    module.setup_environment()
