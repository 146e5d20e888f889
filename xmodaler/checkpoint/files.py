"""Weight and checkpoint files on disk: safetensors, torch archives, plain pickles of arrays."""

from __future__ import annotations

import os
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from xmodaler.utils import safe_pickle
from xmodaler.utils.atomic import atomic_write
from xmodaler.utils.errors import UserError, did_you_mean
from xmodaler.utils.file_io import PathManager, expand_path

from . import transformers_weights

WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pkl")
# Values that `torch.load(weights_only=True)` gives back as they were.
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_TORCH_PLAIN = (torch.Tensor, torch.Size, torch.dtype, torch.device, np.ndarray, np.generic)
_CONTAINERS = (dict, OrderedDict, Counter, list, tuple, set)


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a file of weights or a whole checkpoint, without running anything it says.

    Args:
        path: `.safetensors`, a torch archive (`.pth`, `.pt`, `.bin`, ...), or a `.pkl` of arrays;
            `~`, `$VAR` and addresses are understood. Also a folder that Hugging Face
            `transformers` wrote, or `transformers:` and such a folder or a name of the hub.

    Returns:
        A dict whose key `model` holds the state dict. Other projects' `{"state_dict": ...}` and
        bare state dicts are brought into this form; text models of `transformers` get the names
        of this package.

    Raises:
        UserError: The file is missing, empty, damaged, no weights file, or holds code.
    """
    name = expand_path(path)
    pretrained = name.removeprefix(transformers_weights.PREFIX)
    if pretrained != name or transformers_weights.is_folder_of_transformers(name):
        files = transformers_weights.weight_files(expand_path(pretrained))
        parts = [_read_file(file)["model"] for file in files]
        return _in_own_names({"model": {key: part[key] for part in parts for key in part}})
    return _in_own_names(_read_file(name))


def load_as_written(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read weights under the names that their own project gave them.

    Args:
        path: As for :func:`read_checkpoint`; a text model of `transformers` may be of any type.
    """
    name = expand_path(path).removeprefix(transformers_weights.PREFIX)
    files = [name]
    if not os.path.isfile(name):
        files = transformers_weights.weight_files(name, of_any_type=True)
    state: dict[str, torch.Tensor] = {}
    for file in files:
        state.update(_read_file(file)["model"])
    arrays_to_tensors(state)
    return strip_wrapper_prefixes(state)


def _in_own_names(content: dict[str, Any]) -> dict[str, Any]:
    family = transformers_weights.family_of(content["model"])
    if family is None:
        return content
    return {**content, **transformers_weights.translate(content["model"], family)}


def _read_file(name: str) -> dict[str, Any]:
    local = _local_file(name)
    if local.endswith(".safetensors"):
        return {"model": _read_safetensors(local, name)}
    if local.endswith(".pkl"):
        content = safe_pickle.load(local, encoding="latin1")
    else:
        content = _read_torch(local, name)
    if not isinstance(content, dict):
        raise UserError(
            f"'{name}' holds a {type(content).__name__}; a dict of weights, or of "
            "'model' and training state, is expected."
        )
    if isinstance(content.get("model"), dict):
        return content
    if isinstance(content.get("state_dict"), dict):
        content["model"] = content.pop("state_dict")
        return content
    return {"model": content}


def load_weights(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Read only the weights of a file: parameter name -> tensor on the CPU.

    A common prefix `module.` or `_orig_mod.`, left by wrappers of the model, is removed.

    Raises:
        UserError: As :func:`read_checkpoint`, or if a value is no array.
    """
    state_dict = dict(read_checkpoint(path)["model"])
    arrays_to_tensors(state_dict)
    return strip_wrapper_prefixes(state_dict)


def save_weights(
    model: nn.Module | Mapping[str, torch.Tensor],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write only the weights of a model, as `.safetensors` or (any other name) a torch archive.

    Args:
        model: A model, whose wrappers are ignored, or a state dict.
        path: The file to write, replaced only once all is on disk.
        metadata: Text kept in the header of a safetensors file.
    """
    state_dict = unwrap(model).state_dict() if isinstance(model, nn.Module) else dict(model)
    path = expand_path(path)
    if path.endswith(".safetensors"):
        from safetensors.torch import save

        content = save(_separate(state_dict), {"format": "pt", **(metadata or {})})
        with atomic_write(path) as file:
            file.write(content)
    else:
        with atomic_write(path) as file:
            torch.save({"model": state_dict}, file)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model inside DataParallel, DistributedDataParallel and `torch.compile`."""
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif isinstance(getattr(model, "_orig_mod", None), nn.Module):
            model = model._orig_mod
        else:
            return model


def arrays_to_tensors(state_dict: dict[str, Any]) -> None:
    """Turn numpy arrays into tensors, in place.

    Raises:
        UserError: A value is neither a tensor nor an array.
    """
    for key, value in state_dict.items():
        if isinstance(value, np.ndarray):
            state_dict[key] = torch.from_numpy(np.ascontiguousarray(value))
        elif not isinstance(value, torch.Tensor):
            raise UserError(
                f"The checkpoint holds a {type(value).__name__} under {key!r} where a weight "
                "(tensor or numpy array) is expected."
            )


def strip_wrapper_prefixes(state_dict: dict[str, Any]) -> dict[str, Any]:
    """Remove `module.` and `_orig_mod.` where every key starts with it."""
    for prefix in ("module.", "_orig_mod."):
        if state_dict and all(key.startswith(prefix) for key in state_dict):
            state_dict = {key[len(prefix) :]: value for key, value in state_dict.items()}
    return state_dict


def check_complete(path: str) -> None:
    """Compare the content of a torch archive with its checksums.

    torch itself reads tensors without doing so, and an interrupted copy or a bad disk would go
    unnoticed.

    Raises:
        UserError: The archive is cut off or a checksum differs.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise UserError(f"'{path}' is damaged or incomplete ({error}).") from error
    if damaged is not None:
        raise UserError(f"'{path}' is damaged: the checksum of its part '{damaged}' is wrong.")


def check_loadable(content: Any, where: str = "") -> None:
    """Refuse to write what could not be read back without running code.

    Raises:
        UserError: Names the first value that is no tensor, number, text, or plain container.
    """
    if type(content) in _PLAIN or isinstance(content, _TORCH_PLAIN):
        return
    if type(content) not in _CONTAINERS:
        raise UserError(
            f"The checkpoint would hold a {type(content).__module__}.{type(content).__qualname__} "
            f"under '{where}', which cannot be loaded again; state dicts may hold tensors, "
            "numbers, text, dicts, lists and tuples."
        )
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items:
        check_loadable(value, f"{where}.{key}" if where else str(key))


def _local_file(name: str) -> str:
    try:
        local = PathManager.get_local_path(name)
    except Exception as error:
        # Handlers raise whatever their transport raises (urllib, a cloud client, ...).
        raise UserError(f"'{name}' cannot be fetched: {error}") from error
    if os.path.isdir(local):
        inside = sorted(f for f in os.listdir(local) if f.endswith(WEIGHT_SUFFIXES))
        raise UserError(
            f"'{name}' is a folder; name a weights file in it"
            + (f", such as '{inside[-1]}'." if inside else " (it holds none).")
        )
    if not os.path.isfile(local):
        folder, base = os.path.split(local)
        siblings = os.listdir(folder or ".") if os.path.isdir(folder or ".") else []
        raise UserError(f"Weights file '{name}' does not exist" + did_you_mean(base, siblings))
    if os.path.getsize(local) == 0:
        raise UserError(f"Weights file '{name}' is empty (0 bytes).")
    with open(local, "rb") as file:
        head = file.read(256).lstrip()
    if head.startswith(b"<"):
        raise UserError(
            f"'{name}' is a web page, not weights; the download was answered with an error or a "
            "login page."
        )
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"'{name}' is a Git LFS pointer, not weights; run 'git lfs pull'.")
    return local


def _read_safetensors(local: str, name: str) -> dict[str, torch.Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(local)
    except (SafetensorError, ValueError, OSError) as error:
        raise UserError(f"'{name}' is damaged or no safetensors file ({error}).") from error


def _read_torch(local: str, name: str) -> Any:
    try:
        with torch.serialization.safe_globals(_numpy_globals()):
            return torch.load(local, map_location="cpu", weights_only=True)
    except Exception as error:
        # A damaged or hostile file can fail in any way at all.
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            raise UserError(
                f"'{name}' names '{refused[1]}', which is refused; only tensors, numpy arrays and "
                "plain containers are read from checkpoints."
            ) from None
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"'{name}' is damaged, incomplete, or no torch checkpoint ({reason[:200]})."
        ) from error


def _numpy_globals() -> list[Any]:
    """The names under which numpy arrays and scalars stand in pickles, of numpy 1 and 2."""
    core = np._core.multiarray if hasattr(np, "_core") else np.core.multiarray
    rebuilders = [
        (getattr(core, function), f"{package}.multiarray.{function}")
        for function in ("_reconstruct", "scalar")
        for package in ("numpy.core", "numpy._core")
    ]
    dtypes = [value for value in vars(np.dtypes).values() if isinstance(value, type)]
    return [*rebuilders, np.ndarray, np.dtype, *dtypes]


def _separate(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Give every name memory of its own, which safetensors demands."""
    seen: set[int] = set()
    separate = {}
    for key, tensor in state_dict.items():
        tensor = tensor.detach()
        storage = tensor.untyped_storage().data_ptr()
        shared = storage in seen or tensor.untyped_storage().nbytes() != tensor.nbytes
        seen.add(storage)
        separate[key] = (
            tensor.clone(memory_format=torch.contiguous_format) if shared else (tensor.contiguous())
        )
    return separate
