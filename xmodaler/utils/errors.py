"""Errors that are the user's to mend, and helpers that word them."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in what the user gave: a config, a file, a record, an option.

    The message is one sentence that says what is wrong, where, and what would be right. Command
    lines print it without a traceback and exit with code 2.
    """

    def __str__(self) -> str:
        # KeyError, which some subclasses also derive from, would show the quoted repr instead.
        return " ".join(str(argument) for argument in self.args)


class MissingDependencyError(UserError, ImportError):
    """An optional library is not installed; the message names the command that installs it."""


def nearest(name: str, candidates: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The candidate spelt most like ``name``, ignoring case, or None when nothing is close.

    Args:
        name: What the user wrote.
        candidates: The names that would have been right.
        cutoff: Least similarity in [0, 1], as in :func:`difflib.get_close_matches`.
    """
    by_lower: dict[str, str] = {}
    for candidate in candidates:
        by_lower.setdefault(candidate.lower(), candidate)
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[close[0]] if close else None


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """``"; did you mean 'X'?"`` for the nearest candidate, ``""`` when nothing is close."""
    match = nearest(name, candidates)
    return f"; did you mean '{match}'?" if match is not None else ""
