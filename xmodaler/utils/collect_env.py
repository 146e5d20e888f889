"""A table of what a run runs on, for the log and for bug reports."""

import importlib.metadata
import os
import platform
import sys

__all__ = ["collect_env_info"]

_PACKAGES = (
    *("torchvision", "numpy", "fvcore", "iopath", "pillow", "timm", "transformers"),
    *("safetensors", "omegaconf", "pycocotools", "pycocoevalcap", "tensorboard"),
)
_VARIABLES = ("XMODALER_ENV_MODULE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


def collect_env_info() -> str:
    """The platform, versions, devices and the configuration of torch, as text.

    Nothing but torch is imported for it: versions are read from the installed metadata.
    """
    import torch
    from tabulate import tabulate

    from xmodaler import __version__

    rows = [
        ("platform", platform.platform()),
        ("CPU cores", str(os.cpu_count())),
        ("Python", sys.version.replace("\n", "")),
        ("xmodaler", f"{__version__} @{os.path.dirname(os.path.dirname(__file__))}"),
        ("PyTorch", f"{torch.__version__} @{os.path.dirname(torch.__file__)}"),
        ("PyTorch debug build", str(torch.version.debug)),
    ]
    rows.extend(_devices(torch))
    rows.extend((name, _version(name)) for name in _PACKAGES)
    rows.extend((f"${name}", os.environ[name]) for name in _VARIABLES if name in os.environ)
    return tabulate(rows) + "\n" + torch.__config__.show()


def _devices(torch) -> list[tuple[str, str]]:
    if not torch.cuda.is_available():
        mps = torch.backends.mps.is_available()
        return [("GPU available", "mps" if mps else "no")]
    rows = [("GPU available", "cuda"), ("CUDA of PyTorch", str(torch.version.cuda))]
    cudnn = torch.backends.cudnn.version()
    rows.append(("cuDNN", str(cudnn)))
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = properties.total_memory / 2**30
        capability = f"{properties.major}.{properties.minor}"
        rows.append((f"GPU {index}", f"{properties.name} (arch={capability}, {memory:.0f} GiB)"))
    return rows


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    print(collect_env_info())
