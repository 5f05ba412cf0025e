"""Schedules of exploration noise, written as in DrQ-v2's configuration files."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from lightning_synther.errors import ConfigError

Schedule = Callable[[int], float]
"""Value at a step."""


def parse_schedule(text: str | float) -> Schedule:
    """Schedule of a standard deviation from its description; `ConfigError` where it is none of these:

    ``0.2`` is constant. ``linear(i, f, d)`` goes from i to f over d steps and stays. ``step_linear(i, f1,
    d1, f2, d2)`` goes from i to f1 over d1 steps, then to f2 over d2 more. All deviations are above 0: without
    noise an action has no density.

    >>> parse_schedule("linear(1.0, 0.1, 100)")(50)
    0.55
    """
    try:
        value = float(text)
    except ValueError:
        return _parse_ramps(str(text))
    _check_deviations(text, value)
    return lambda step: value


def _parse_ramps(text: str) -> Schedule:
    match = re.fullmatch(r"\s*(linear|step_linear)\((.*)\)\s*", text)
    kind = match.group(1) if match else ""
    try:
        numbers = [float(part) for part in match.group(2).split(",")] if match else []
    except ValueError:
        numbers = []
    if len(numbers) != {"linear": 3, "step_linear": 5}.get(kind, -1) or min(numbers[2::2]) <= 0:
        raise ConfigError(
            f"schedule {text!r} is not understood: give a number, linear(initial,final,duration) or "
            "step_linear(initial,final1,duration1,final2,duration2) with durations above 0"
        )
    initial, final, duration, *second = numbers
    _check_deviations(text, initial, final, *second[:1])
    if not second:
        return lambda step: _ramp(initial, final, step / duration)
    final2, duration2 = second

    def step_linear(step: int) -> float:
        if step <= duration:
            return _ramp(initial, final, step / duration)
        return _ramp(final, final2, (step - duration) / duration2)

    return step_linear


def _check_deviations(text: str | float, *deviations: float) -> None:
    for deviation in deviations:
        if not 0 < deviation < math.inf:
            raise ConfigError(
                f"schedule {text!r} holds the standard deviation {deviation:g}: give numbers above 0, as in 0.1"
            )


def _ramp(initial: float, final: float, progress: float) -> float:
    mix = min(max(progress, 0.0), 1.0)
    return (1.0 - mix) * initial + mix * final
