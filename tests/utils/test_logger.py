"""Loggers and small tables."""

import logging
import re
import sys

import pytest

from xmodaler.utils import logger as logger_module
from xmodaler.utils.errors import UserError
from xmodaler.utils.logger import (
    Counter,
    colored,
    create_small_table,
    log_every_n,
    log_every_n_seconds,
    log_first_n,
    setup_logger,
    tabulate,
)


@pytest.fixture
def name(request):
    """A logger name of this test's own, without handlers afterwards."""
    name = f"testlog_{request.node.name}"
    yield name
    logger = logging.getLogger(name)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)


def test_console_and_file_formats(tmp_path, capsys, name):
    logger = setup_logger(str(tmp_path / "run"), color=False, name=name, abbrev_name="tl")
    assert setup_logger(str(tmp_path / "run"), color=False, name=name, abbrev_name="tl") is logger
    child = logging.getLogger(f"{name}.engine")
    child.info("hello %d", 3)
    child.warning("careful")
    console = capsys.readouterr().out.splitlines()
    stamp = r"\d\d/\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"\[{stamp} tl\.engine\]: hello 3", console[0])
    assert re.fullmatch(rf"WARNING \[{stamp} tl\.engine\]: careful", console[1])
    written = (tmp_path / "run" / "log.txt").read_text().splitlines()
    assert re.fullmatch(rf"\[{stamp}\] {name}\.engine INFO: hello 3", written[0])
    assert len(written) == 2
    assert logger.level == logging.DEBUG and not logger.propagate


@pytest.fixture
def colours_decided_anew():
    """Newer termcolor remembers whether to colour."""
    module = sys.modules["termcolor.termcolor"]
    forget = getattr(getattr(module, "can_colorize", None), "cache_clear", lambda: None)
    forget()
    yield
    forget()


def test_colours(monkeypatch, capsys, name, colours_decided_anew):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    setup_logger(name=name)
    logging.getLogger(name).error("bad")
    line = capsys.readouterr().out
    assert line.startswith("\x1b[31mERROR\x1b[0m \x1b[32m[")


def test_the_package_is_abbreviated(capsys):
    logger = logging.getLogger("xmodaler")
    before = list(logger.handlers)
    setup_logger(color=False)
    logging.getLogger("xmodaler.engine.x").info("hi")
    try:
        assert "xl.engine.x]: hi" in capsys.readouterr().out
    finally:
        for handler in set(logger.handlers) - set(before):
            logger.removeHandler(handler)


def test_other_ranks_write_files_only(tmp_path, capsys, name):
    logger = setup_logger(str(tmp_path / "own.log"), 2, name=name)
    logger.info("from rank two")
    assert capsys.readouterr().out == ""
    assert "from rank two" in (tmp_path / "own.log.rank2").read_text()


def test_log_files_are_appended_to(tmp_path, name):
    (tmp_path / "log.txt").write_text("before\n")
    setup_logger(str(tmp_path), 1, name=name + "1")
    setup_logger(str(tmp_path), name=name).info("after")
    assert (tmp_path / "log.txt").read_text().startswith("before\n[")


def test_a_log_that_cannot_be_written_is_named(name):
    with pytest.raises(UserError, match=r"'/proc/nowhere/log\.txt' cannot be written"):
        setup_logger("/proc/nowhere", name=name)


def test_messages_thin_themselves_out(caplog, monkeypatch):
    with caplog.at_level(logging.INFO, logger="thin"):
        for index in range(5):
            log_first_n(logging.INFO, f"first {index}", 2, name="thin")
            log_first_n(logging.INFO, f"by text {index % 2}", key="message", name="thin")
            log_every_n(logging.INFO, f"every {index}", 2, name="thin")
        clock = iter([0.0, 1.0, 5.0, 6.0])
        monkeypatch.setattr(logger_module.time, "monotonic", lambda: next(clock))
        for index in range(4):
            log_every_n_seconds(logging.INFO, f"seconds {index}", 5, name="thin")
    assert [message for message in caplog.messages if "first" in message] == ["first 0", "first 1"]
    assert [m for m in caplog.messages if "text" in m] == ["by text 0", "by text 1"]
    assert [m for m in caplog.messages if "every" in m] == ["every 0", "every 2", "every 4"]
    assert [m for m in caplog.messages if "seconds" in m] == ["seconds 0", "seconds 2"]


def test_small_tables():
    table = create_small_table({"Bleu_1": 0.123456, "n": 3})
    assert "0.123" in table and "Bleu_1" in table and table.count("|") >= 9


def test_helpers_stay_importable():
    assert Counter("aa")["a"] == 2 and "x" in colored("x", "red") and tabulate([[1]])
