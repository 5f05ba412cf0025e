"""What Lightning refuses, in one sentence: settings of the Trainer, and the seed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_synther.command import first_line
from lightning_synther.errors import ConfigError

#: What Trainer's constructor raises for arguments of users: of wrong values, kinds, or for missing packages.
REFUSALS = (MisconfigurationException, ValueError, TypeError, ImportError)
#: How the message of `EarlyStopping` begins, where its metric is never logged.
UNKNOWN_METRIC = "Early stopping conditioned on metric"


@contextmanager
def trainer_refusals(shared: Mapping[str, Any]) -> Iterator[None]:
    """Turn what a Trainer's construction from the settings ``shared`` raises into a `ConfigError`."""
    try:
        yield
    except REFUSALS as error:
        given = [f"trainer.{key}={value}" for key, value in shared.items() if value not in ("auto", 1)]
        raise ConfigError(
            f"Lightning cannot make a Trainer of {', '.join(given) or 'these settings'} "
            f"({first_line(error).rstrip('.')}): change or remove them"
        ) from error


@contextmanager
def unknown_metrics() -> Iterator[None]:
    """Turn the error of an `EarlyStopping` whose metric no stage logs into a `ConfigError`; no other error."""
    try:
        yield
    except RuntimeError as error:
        if not str(error).startswith(UNKNOWN_METRIC):
            raise
        raise ConfigError(f"trainer.callbacks: {first_line(error)}") from error
