"""The chain on states in seconds: short episodes of a small task, tiny networks, a few updates a stage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from lightning_synther.__main__ import main
from tests.stages import tiny

BASE = tiny.CONFIGS / "state_offline.yaml"
STAGES = (
    "dataset",
    "states",
    "diffusion",
    "synthesis",
    "agent",
    "evaluation",
    "agent_real_only",
    "evaluation_real_only",
)
TINY: dict[str, Any] = {
    **{name: tiny.TINY[name] for name in ("synthesis", "trainer", "evaluation", "checkpoint_every")},
    "diffusion": {
        **tiny.TINY["diffusion"],
        "model": {"width": 16, "num_layers": 1, "sampler": "dpmpp_2m_sde", "num_sampling_steps": 2},
    },
    "model": {"init_args": {"hidden_dim": 8}},
    "data": {
        "init_args": {
            "batch_size": 16,
            "updates_per_step": 2,
            "dataset": {
                "task": "cartpole_swingup",
                "policy": "random",
                "num_episodes": 6,
                "time_limit": 0.4,
            },
        }
    },
}


def arguments(folder: Path, *more: str) -> list[str]:
    """Command line of ``fit`` into ``folder/run``; collections go to ``folder/data``."""
    config = folder / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    where = [f"--run_dir={folder / 'run'}", f"--data.dataset.root={folder / 'data'}"]
    return ["fit", f"--config={BASE}", f"--config={config}", *where, *more]


def fit(folder: Path, *more: str) -> dict[str, Any]:
    """Run ``fit`` in this process, which has to succeed; returns the summary."""
    assert main(arguments(folder, *more)) == 0
    summary: dict[str, Any] = json.loads((folder / "run" / "summary.json").read_text())
    return summary
