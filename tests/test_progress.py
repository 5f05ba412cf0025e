"""Progress: a bar on a terminal, a few log lines elsewhere."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from lightning_synther import progress
from lightning_synther.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def run(clock, caplog, seconds_each: float, total: int = 1000) -> list[str]:
    with (
        caplog.at_level(logging.INFO, logger="lightning_synther"),
        Progress("encoder", total, "updates") as bar,
    ):
        for _ in range(total):
            clock[0] += seconds_each
            bar.update()
    return caplog.messages


def test_a_fast_stage_says_little_in_a_file(clock, caplog):
    assert run(clock, caplog, 0.001) == []


def test_a_line_for_every_tenth(clock, caplog):
    messages = run(clock, caplog, 0.5)
    assert len(messages) == 10
    assert messages[3] == "encoder: 40 % of 1000 updates, 05:00 left"


def test_a_line_a_minute_for_a_slow_stage(clock, caplog):
    messages = run(clock, caplog, 6.0)
    assert len(messages) == 100
    assert messages[0] == "encoder: 1 % of 1000 updates, 1:39:00 left"


def test_the_rate_after_a_resumption_is_that_of_this_run(clock, caplog):
    bar = Progress("agent", 100, "updates", initial=50)
    clock[0] += 10
    bar.update(25)
    assert str(bar) == "agent: 75 % of 100 updates, 00:10 left"


def test_silence(clock, caplog):
    with caplog.at_level(logging.INFO, logger="lightning_synther"):
        bar = Progress("agent", 10, "updates", show=False)
        clock[0] += 100
        bar.update(10)
    assert not caplog.messages


def test_no_total_no_share(clock):
    bar = Progress("agent", None, "updates")
    bar.update(3)
    assert str(bar) == "agent: 3 updates"


def test_a_bar_on_a_terminal(monkeypatch, caplog):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("encoder", 10, "updates", initial=2) as bar:
        bar.update(8)
    assert "encoder: 100%" in terminal.getvalue()
    assert "10/10 updates" in terminal.getvalue()
    assert not caplog.messages
