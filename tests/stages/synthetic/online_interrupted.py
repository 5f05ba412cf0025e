"""An online run with synthetic replay that is ended by a signal again and again; write exit statuses as JSON.

``python -m tests.stages.synthetic.online_interrupted SIGNAL RUN_DIR [FLAG ...]``, as `tests.stages.record.interrupted`.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import lightning_synther.cli
from lightning_synther.__main__ import main
from lightning_synther.agents.scoring import ScoredAgent
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.online.environments import Environments
from lightning_synther.stages.synthetic.resynthesis import Resynthesis
from tests.stages.record.interrupted import end_after, in_a_fork
from tests.stages.synthetic.online_tiny import arguments

#: What the run is at when the signal comes -> method, and number of calls after which it does.
MOMENTS: dict[str, tuple[type, str, int]] = {
    "random steps": (Environments, "_step", 30),
    "first retraining": (Resynthesis, "_write", 1),
    "sampling": (StoreWriter, "write", 3),  # the first chunk is the replay memory
    "first fidelity": (Resynthesis, "_judge", 1),
    "updates before a checkpoint": (Environments, "_step", 50),
    "second retraining": (Resynthesis, "_train", 2),
    "updates after a checkpoint": (Environments, "_step", 20),
    "third retraining": (Resynthesis, "_write", 1),
    "another time": (Environments, "_step", 18),
}


def interruptions(number: int, run_dir: Path, flags: list[str]) -> Iterator[tuple[str, int, str]]:
    """(moment, status, standard error) of every run, the last one undisturbed."""
    for moment in (*MOMENTS, ""):

        def run(moment: str = moment) -> int:
            if moment:
                end_after(*MOMENTS[moment], number)
            return main(arguments(run_dir, *flags))

        yield moment, *in_a_fork(run)


if __name__ == "__main__":
    assert lightning_synther.cli
    ScoredAgent.eval_workers = 0
    number = signal.Signals[sys.argv[1]]
    print(json.dumps(list(interruptions(number, Path(sys.argv[2]), sys.argv[3:]))))
