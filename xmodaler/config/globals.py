"""The default config and the one config a process may share."""

from .config import CfgNode

global_cfg = CfgNode()


def get_cfg() -> CfgNode:
    """A fresh copy of the default configuration."""
    from .defaults import _C

    return _C.clone()


def set_global_cfg(cfg: CfgNode) -> None:
    """Make ``global_cfg`` point at the values of ``cfg``.

    The tree is refilled in place, so a module that imported it earlier sees the change. Its
    sections are those of ``cfg`` themselves, not copies.
    """
    global_cfg.clear()
    global_cfg.update(cfg)
