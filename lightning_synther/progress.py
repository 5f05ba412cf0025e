"""Progress that suits where it goes: a bar on a terminal, a log line now and then in a file."""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

from tqdm import tqdm

log = logging.getLogger(__name__)

BAR = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}, {rate_fmt}]"
SHARE = 0.1  # a line for every tenth of the work,
SHORTEST, LONGEST = 5.0, 60.0  # but with at least and at most so many seconds between two lines


class Progress:
    """Counts ``total`` things of one ``unit`` on standard error, with the time that is left.

    Args:
        description: what is going on.
        total: number of things; None where nobody knows.
        unit: their name, in the plural.
        initial: how many were done before.
        show: whether to say anything.
    """

    def __init__(
        self, description: str, total: int | None, unit: str, initial: int = 0, show: bool = True
    ) -> None:
        self.description, self.total, self.unit = description, total, unit
        self.initial = self.count = self._reported = initial
        self._start = self._last = time.monotonic()
        self._bar: tqdm[None] | None = None
        self._show = show
        if show and sys.stderr.isatty():
            self._bar = tqdm(
                desc=description,
                total=total,
                unit=f" {unit}",
                initial=initial,
                bar_format=BAR if total else None,
                dynamic_ncols=True,
                mininterval=0.5,
            )

    def update(self, count: int = 1) -> None:
        """``count`` more things are done."""
        self.count += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._show and self._due():
            log.info("%s", str(self))  # as it is now, also to handlers that format later
            self._last, self._reported = time.monotonic(), self.count

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def __str__(self) -> str:
        if self.total is None:
            return f"{self.description}: {self.count} {self.unit}"
        done = max(1, self.count - self.initial)
        left = (time.monotonic() - self._start) / done * max(0, self.total - self.count)
        share = 100 * self.count // max(1, self.total)
        return f"{self.description}: {share} % of {self.total} {self.unit}, {_duration(left)} left"

    def _due(self) -> bool:
        waited = time.monotonic() - self._last
        step = SHARE * self.total if self.total is not None else float("inf")
        return waited >= LONGEST or (waited >= SHORTEST and self.count - self._reported >= step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _duration(seconds: float) -> str:
    """Seconds as ``h:mm:ss`` or ``m:ss``, as in tqdm."""
    return tqdm.format_interval(seconds)
