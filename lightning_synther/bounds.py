"""Bounds of the numbers that a user gives, as one sentence each that names the setting.

``where`` is the key of the section that holds it, empty for an argument that has no fixed place in a config (an
agent is `model`, and also `encoder.model`). None passes: something else decides that number then.
"""

from __future__ import annotations

import math

from lightning_synther.errors import ConfigError


def check_counts(where: str, *, least: int = 1, **counts: int | None) -> None:
    """Raise `ConfigError` for a count below ``least``."""
    for name, count in counts.items():
        if count is not None and not count >= least:
            raise ConfigError(f"{_key(where, name)} is {count}: give at least {least}")


def check_positive(where: str, **values: float | None) -> None:
    """Raise `ConfigError` for a number that is not finite and above 0."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ConfigError(f"{_key(where, name)} is {value}: give a number above 0")


def check_shares(where: str, **values: float | None) -> None:
    """Raise `ConfigError` for a share, or a discount, outside (0, 1]."""
    for name, value in values.items():
        if value is not None and not 0 < value <= 1:
            raise ConfigError(f"{_key(where, name)} is {value}: give a number above 0 and at most 1")


def _key(where: str, name: str) -> str:
    return f"{where}.{name}" if where else name
