"""Where the wall-clock time of a training goes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class TimeSplit:
    """Seconds by what they were spent on; `since_last` counts the time between two measured pieces."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._left: float | None = None

    @contextmanager
    def measure(self, name: str) -> Iterator[None]:
        """Count the time inside under ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._left = time.perf_counter()
            self._add(name, self._left - start)

    def since_last(self, name: str) -> None:
        """Count the time since the latest piece ended under ``name``; nothing before the first one."""
        if self._left is not None:
            self._add(name, time.perf_counter() - self._left)
            self._left = None

    def state_dict(self) -> dict[str, float]:
        """The seconds so far."""
        return dict(self.seconds)

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on counting from ``state``."""
        self.seconds = dict(state)

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
