"""The models that X-modaler released: their configs, papers and scores, and their weights.

::

    from xmodaler import model_zoo

    for name in model_zoo.list():
        print(name, model_zoo.get_entry(name).scores.get("CIDEr-D"))
    cfg = model_zoo.get_config("image_caption/updown")
    model = model_zoo.get("image_caption/updown", weights="updown.pth")
"""

from .entries import ZooEntry, get_entry
from .entries import names as list
from .files import config_root, get_config, get_config_file
from .weights import get

__all__ = [
    "ZooEntry",
    "config_root",
    "get",
    "get_config",
    "get_config_file",
    "get_entry",
    "list",
]
