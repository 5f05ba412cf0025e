"""What Lightning says once per Trainer and is no news here."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lightning.pytorch", "lightning.fabric")


def quieten_lightning() -> None:
    """Leave out what Lightning says once per Trainer: a chain has many, and none of it is news."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        r"Checkpoint directory .* exists and is not empty",
        r"The dirpath has changed from",  # a run directory may be moved
        r"(?s)Using ModelCheckpoint with manual optimization",  # the state after the update is the one wanted
        r"`isinstance\(treespec, LeafSpec\)` is deprecated",
        r"Total length of .* across ranks is zero",
        r"Found \d+ module\(s\) in eval mode",
        r"The '\w+_dataloader' does not have many workers",
        r"Using `DistributedSampler` with the dataloaders",  # an episode that two ranks ran counts once
        r"It is recommended to use `self.log\(.*sync_dist=True",  # it has been averaged over ranks
        r"Starting from v1.9.0, `tensorboardX` has been removed",
    ):
        warnings.filterwarnings("ignore", message=message)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """`quieten_lightning` for a function in somebody else's program, whose own settings return at the end."""
    levels = {name: logging.getLogger(name).level for name in LOGGERS}
    with warnings.catch_warnings():
        quieten_lightning()
        try:
            yield
        finally:
            for name, level in levels.items():
                logging.getLogger(name).setLevel(level)
