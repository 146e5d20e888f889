"""Training many configs on one data set, and one table of how they compare."""

from .command import run
from .limits import limits_of
from .oracle import oracle_scores
from .single import read_config, train_and_test
from .suite import SUITES, Entry, read_suite

__all__ = [
    "SUITES",
    "Entry",
    "limits_of",
    "oracle_scores",
    "read_config",
    "read_suite",
    "run",
    "train_and_test",
]
