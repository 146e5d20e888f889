"""What all tests share."""

import contextlib
import logging

import pytest

from xmodaler.utils import logger as logger_module

_LOGGERS = [logging.getLogger(name) for name in ("xmodaler", "fvcore")]
# As they are before any test: fixtures of a session or module may train before a test begins.
_BEFORE = [(logger.level, logger.propagate, list(logger.handlers)) for logger in _LOGGERS]


@contextlib.contextmanager
def _loggers_restored():
    try:
        yield
    finally:
        # Both remember what they set up by name, and another test has other files of that name.
        logger_module.setup_logger.cache_clear()
        logger_module._log_stream.cache_clear()
        for logger, (level, propagate, handlers) in zip(_LOGGERS, _BEFORE, strict=True):
            logger.setLevel(level)
            logger.propagate = propagate
            logger.handlers[:] = handlers


@pytest.fixture(autouse=True)
def loggers_restored():
    """Trainers set up logging; afterwards the loggers are as other tests expect them.

    Gives the context manager, for tests that set up logging several times.
    """
    with _loggers_restored():
        yield _loggers_restored
