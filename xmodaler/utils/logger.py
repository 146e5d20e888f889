"""Loggers: set-up for the console and files, calls that thin themselves out, small tables."""

import atexit
import contextlib
import functools
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tabulate import tabulate
from termcolor import colored

from .errors import UserError
from .file_io import PathManager

__all__ = [
    "Counter",
    "colored",
    "create_small_table",
    "log_every_n",
    "log_every_n_seconds",
    "log_files_of_block",
    "log_first_n",
    "setup_logger",
    "tabulate",
]

_DATE_FORMAT = "%m/%d %H:%M:%S"


class _ColorfulFormatter(logging.Formatter):
    """Shortens the root name and marks warnings and errors in red."""

    def __init__(self, root_name: str, abbrev_name: str, color: bool) -> None:
        head = "[%(asctime)s %(name)s]: "
        super().__init__(
            (colored(head, "green") if color else head) + "%(message)s", datefmt=_DATE_FORMAT
        )
        self._root_name = root_name
        self._abbrev_name = abbrev_name
        self._color = color

    def formatMessage(self, record: logging.LogRecord) -> str:
        record = logging.makeLogRecord(record.__dict__)
        if record.name == self._root_name or record.name.startswith(self._root_name + "."):
            rest = record.name[len(self._root_name) :]
            record.name = (self._abbrev_name + rest).lstrip(".")
        line = super().formatMessage(record)
        if record.levelno >= logging.WARNING:
            word = "ERROR" if record.levelno >= logging.ERROR else "WARNING"
            line = f"{colored(word, 'red') if self._color else word} {line}"
        return line


@functools.cache
def setup_logger(
    output: str | None = None,
    distributed_rank: int = 0,
    *,
    color: bool = True,
    name: str = "xmodaler",
    abbrev_name: str | None = None,
) -> logging.Logger:
    """Give a logger its handlers; calls with the same arguments do it once.

    Rank 0 writes to the console; every rank appends to a file when ``output`` is given.

    Args:
        output: A folder (the file is ``log.txt`` in it), or a file ending in .txt or .log. Ranks
            above 0 append ``.rank{r}`` to the file name.
        distributed_rank: Rank of this process.
        color: Whether the console may be coloured; termcolor decides (terminal, NO_COLOR).
        name: Root name of the logger.
        abbrev_name: What stands for the root name on the console; ``xl`` for ``xmodaler``.

    Returns:
        The logger, at level DEBUG, not propagating.

    Raises:
        UserError: The log file cannot be written.
    """
    logger = logging.getLogger(name)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    if abbrev_name is None:
        abbrev_name = "xl" if name == "xmodaler" else name

    if distributed_rank == 0 and not any(
        isinstance(handler, _ConsoleHandler) for handler in logger.handlers
    ):
        console = _ConsoleHandler()
        console.setLevel(logging.DEBUG)
        console.setFormatter(_ColorfulFormatter(name, abbrev_name, color))
        logger.addHandler(console)

    filename = None if output is None else _log_filename(output, distributed_rank)
    if filename is not None and filename not in [_file_of(own) for own in logger.handlers]:
        handler = _FileHandler(filename)
        handler.setLevel(logging.DEBUG)
        handler.setFormatter(
            logging.Formatter(
                "[%(asctime)s] %(name)s %(levelname)s: %(message)s", datefmt=_DATE_FORMAT
            )
        )
        logger.addHandler(handler)
    return logger


@contextlib.contextmanager
def log_files_of_block(names: Sequence[str] = ("xmodaler", "fvcore")) -> Iterator[None]:
    """Log files that loggers get in a block, from :func:`setup_logger`, end with it.

    Args:
        names: Of the loggers.
    """
    loggers = [logging.getLogger(name) for name in names]
    before = [list(logger.handlers) for logger in loggers]
    try:
        yield
    finally:
        for logger, handlers in zip(loggers, before, strict=True):
            for handler in list(logger.handlers):
                if handler not in handlers and _file_of(handler):
                    logger.removeHandler(handler)
        # The next call shall open such a file anew.
        setup_logger.cache_clear()


def _file_of(handler: logging.Handler) -> str:
    return handler._filename if isinstance(handler, _FileHandler) else ""


class _ConsoleHandler(logging.StreamHandler):
    """Writes to whatever ``sys.stdout`` is at the time of the message."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stdout

    def handleError(self, record: logging.LogRecord) -> None:
        # Nobody reads any more; that must not end a training.
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            super().handleError(record)


class _FileHandler(logging.StreamHandler):
    """Writes to a log file; says once when that has become impossible, on a full disk above all."""

    def __init__(self, filename: str) -> None:
        super().__init__(_log_stream(filename))
        self._filename = filename
        self._failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self._failed:
            self._failed = True
            reason = error.strerror or error
            print(
                f"warning: log file '{self._filename}' is incomplete from here on: {reason}",
                file=sys.stderr,
            )


def _log_filename(output: str, rank: int) -> str:
    output = os.fspath(output)
    filename = output if output.endswith((".txt", ".log")) else os.path.join(output, "log.txt")
    return filename + f".rank{rank}" if rank > 0 else filename


@functools.cache
def _log_stream(filename: str) -> Any:
    # Cached, so that loggers of several names share one stream per file.
    try:
        folder = os.path.dirname(filename)
        if folder:
            PathManager.mkdirs(folder)
        stream = PathManager.open(filename, "a", encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"Log file '{filename}' cannot be written: {reason}") from error
    atexit.register(_close, stream)
    return stream


def _close(stream: Any) -> None:
    # What could not be written before cannot be written at exit either, and was reported.
    with contextlib.suppress(OSError):
        stream.close()


_counts: Counter = Counter()
_last_logged: dict[Any, float] = {}


def _caller() -> tuple[str, tuple[str, int, str]]:
    """Module name and identity of the first frame outside this file."""
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename != __file__:
            module = frame.f_globals.get("__name__", "xmodaler")
            if module == "__main__":
                module = "xmodaler"
            return module, (code.co_filename, frame.f_lineno, code.co_name)
        frame = frame.f_back
    return "xmodaler", ("", 0, "")


def log_first_n(
    lvl: int,
    msg: str,
    n: int = 1,
    *,
    name: str | None = None,
    key: str | tuple[str, ...] = "caller",
) -> None:
    """Log only the first ``n`` times.

    Args:
        lvl: Logging level.
        msg: The message.
        n: How many times.
        name: Logger name; the caller's module by default.
        key: What counts as the same: ``"caller"`` (the line of code), ``"message"``, or both.
    """
    module, place = _caller()
    keys = (key,) if isinstance(key, str) else tuple(key)
    identity: tuple[Any, ...] = ()
    if "caller" in keys:
        identity += place
    if "message" in keys:
        identity += (msg,)
    _counts[identity] += 1
    if _counts[identity] <= n:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log the first and then every ``n``-th call from the same line of code.

    Args:
        lvl: Logging level.
        msg: The message.
        n: The period.
        name: Logger name; the caller's module by default.
    """
    module, place = _caller()
    _counts[place] += 1
    if n == 1 or _counts[place] % n == 1:
        logging.getLogger(name or module).log(lvl, msg)


def log_every_n_seconds(lvl: int, msg: str, n: int = 1, *, name: str | None = None) -> None:
    """Log at most once per ``n`` seconds from the same line of code.

    Args:
        lvl: Logging level.
        msg: The message.
        n: Seconds.
        name: Logger name; the caller's module by default.
    """
    module, place = _caller()
    now = time.monotonic()
    last = _last_logged.get(place)
    if last is None or now - last >= n:
        logging.getLogger(name or module).log(lvl, msg)
        _last_logged[place] = now


def create_small_table(small_dict: Mapping[str, Any]) -> str:
    """A one-row table of a few values, three decimals, for the log.

    Args:
        small_dict: Column name -> value.
    """
    return tabulate(
        [list(small_dict.values())],
        headers=list(small_dict.keys()),
        tablefmt="pipe",
        floatfmt=".3f",
        stralign="center",
        numalign="center",
    )
