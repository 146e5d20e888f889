"""The progress bar and the log lines above it."""

import logging
from types import SimpleNamespace

import pytest

from xmodaler.engine.hooks import ProgressBar
from xmodaler.utils.logger import setup_logger


def run_bar(steps: int = 3) -> None:
    bar = ProgressBar(period=1)
    storage = SimpleNamespace(latest=lambda: {"total_loss": (1.25, 0)})
    bar.trainer = SimpleNamespace(start_iter=0, max_iter=steps, iter=0, storage=storage)
    bar.before_train()
    for bar.trainer.iter in range(steps):
        bar.after_step()
        logging.getLogger("xmodaler").info("a line of the log")
    bar.after_train()


def test_bar_counts_steps_and_shows_the_loss(capfd: pytest.CaptureFixture[str]) -> None:
    run_bar()
    shown = capfd.readouterr().err
    assert "3/3" in shown and "loss=1.250" in shown


@pytest.mark.parametrize(("level", "visible"), [(logging.INFO, True), (logging.WARNING, False)])
def test_log_lines_keep_the_level_of_the_console(
    capfd: pytest.CaptureFixture[str], level: int, visible: bool
) -> None:
    handlers = setup_logger().handlers
    before = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(level)
    run_bar()
    captured = capfd.readouterr()
    for handler, old in zip(handlers, before, strict=True):
        handler.setLevel(old)
    assert ("a line of the log" in captured.out + captured.err) is visible
    assert setup_logger().handlers == handlers
