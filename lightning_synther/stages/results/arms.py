"""The arms of a run: its agent, and the same agent on one kind of transitions alone, as `comparison` asks for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Arm(NamedTuple):
    """What an arm is called in tables and plots, what it is, and the `mixing` of its data (None: the config's)."""

    label: str
    description: str
    mixing: str | None = None


AGENT = "agent"
#: In the order in which they are trained and shown; a name is that of `comparison`, and of summary.json.
ARMS = {
    AGENT: Arm("agent", "agent"),
    "real_only": Arm("real only", "agent on real data only", "real"),
    "synthetic_only": Arm("synthetic only", "agent on synthetic data only", "synthetic"),
}
#: Those beside the agent.
COMPARED = tuple(name for name in ARMS if name != AGENT)


def scores_by_arm(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The scores of the arms that a summary.json has; the agent's lie at its top level."""
    found = {AGENT: summary, **{name: summary.get(name) for name in COMPARED}}
    return {name: scores for name, scores in found.items() if scores}
