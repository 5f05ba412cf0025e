"""What `inspect` found: the record that its parts fill, print and draw."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.examination import Examined

SHOWN = 20  # faults that are printed


@dataclass
class Inspection:
    """The findings: what is printed line by line, and the figures behind it.

    Attributes:
        title: what the path is.
        lines: (name, text) in the order of printing.
        values: returns of episodes, or rewards of transitions, that the histogram shows; ``values_of`` says which.
        files: the examined files, for the contact sheet.
        faults: one line for each; empty for a sound dataset.
        notes: worth knowing, but no fault.
    """

    path: Path
    title: str
    lines: list[tuple[str, str]] = field(default_factory=list)
    values: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    values_of: str = "returns"
    files: list[Examined] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        rows = [("path", str(self.path)), ("format", self.title), *self.lines]
        rows += [("note", note) for note in self.notes]
        shown = [("fault", fault) for fault in self.faults[:SHOWN]]
        if len(self.faults) > SHOWN:
            shown.append(("", f"... and {len(self.faults) - SHOWN} more"))
        return "\n".join(f"{name:<13}{text}" for name, text in rows + (shown or [("faults", "none")]))


def distribution(name: str, values: NDArray[Any]) -> list[tuple[str, str]]:
    """Smallest, quartiles, largest and mean in one line."""
    if len(values) == 0:
        return [(name, "no whole episode")]
    low, first, median, third, high = np.percentile(values, [0, 25, 50, 75, 100])
    return [
        (
            name,
            f"min {low:.4g}, quartiles {first:.4g} {median:.4g} {third:.4g}, max {high:.4g}, "
            f"mean {np.mean(values, dtype=np.float64):.4g}",
        )
    ]
