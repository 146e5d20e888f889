"""Checkpoints: written atomically, read without running code, translated between layouts."""

from .checkpointer import XmodalerCheckpointer
from .files import load_weights, save_weights
from .periodic import PeriodicCheckpointer, PeriodicEpochCheckpointer
from .rename import RENAME_TABLES, register_rename_table, rename_keys
from .report import IncompatibleKeys
from .rng import rng_state, set_rng_state

# fvcore's name for the same interface, and the spellings of the X-modaler documentation.
Checkpointer = XmodalerCheckpointer
XmodalerCheckpoint = XmodalerCheckpointer
PeriodicEpochCheckpoint = PeriodicEpochCheckpointer

__all__ = [
    "RENAME_TABLES",
    "Checkpointer",
    "IncompatibleKeys",
    "PeriodicCheckpointer",
    "PeriodicEpochCheckpoint",
    "PeriodicEpochCheckpointer",
    "XmodalerCheckpoint",
    "XmodalerCheckpointer",
    "load_weights",
    "register_rename_table",
    "rename_keys",
    "rng_state",
    "save_weights",
    "set_rng_state",
]
