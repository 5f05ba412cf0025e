"""Bringing a stage to *finished*, on all ranks: reuse it, resume it, or rebuild it, and say which and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from lightning_synther.stages.record.ranks import barrier, from_rank_zero, is_rank_zero
from lightning_synther.stages.record.stage import Stage, Status

log = logging.getLogger(__name__)


def ensure(stage: Stage, build: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """Bring ``stage`` to *finished* and return its results: reuse, resume or rebuild, and say which and why.

    Runs on every rank. Rank zero decides, and only it writes the record.
    """
    status = from_rank_zero(stage.status)
    if status == "finished":
        log.info("%s: finished earlier, reused", stage.name)
        return stage.results
    if is_rank_zero():
        _begin(stage, status)
    barrier()  # nobody looks into the folder before it is what rank zero made of it
    if not is_rank_zero():
        build()
    else:
        with stage.timed():
            results = build()
        stage.finish(results)
        log.info("%s: finished in %.0f s", stage.name, stage.seconds)
    barrier()
    return stage.results


def ensure_on_rank_zero(stage: Stage, build: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """As `ensure`, for work that one process does alone; the others wait for its record."""
    return ensure(stage, build if is_rank_zero() else dict)


def _begin(stage: Stage, status: Status) -> None:
    if status == "stale":
        log.info("%s: rebuilt, because these changed: %s", stage.name, "; ".join(stage.changes()))
        stage.discard()
    elif status == "extended":
        log.info("%s: goes on, because it is longer now: %s", stage.name, "; ".join(stage.changes()))
    else:
        log.info("%s: %s", stage.name, "was interrupted, goes on" if status == "interrupted" else "starts")
    stage.begin()
