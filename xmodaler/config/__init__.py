"""Configuration: the tree, its defaults, and construction of objects from it."""

from .compat import downgrade_config, upgrade_config
from .config import CfgNode
from .configurable import configurable
from .constants import kfg
from .globals import get_cfg, global_cfg, load_config, set_global_cfg

__all__ = [
    "CfgNode",
    "configurable",
    "downgrade_config",
    "get_cfg",
    "global_cfg",
    "kfg",
    "load_config",
    "set_global_cfg",
    "upgrade_config",
]
