"""The whole chain in seconds: short episodes of a small task, tiny networks, a dozen updates a stage."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_synther.__main__ import main
from lightning_synther.online.collect import collect

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = CONFIGS / "vd4rl_cheetah.yaml"
STAGES = (
    "dataset",
    "encoder",
    "latents",
    "diffusion",
    "synthesis",
    "agent",
    "evaluation",
    "agent_real_only",
    "evaluation_real_only",
)
TINY: dict[str, Any] = {
    "encoder": {
        "model": {"init_args": {"hidden_dim": 16, "feature_dim": 8, "log_every_n_updates": 2}},
        "training": {"max_steps": 6, "batch_size": 8, "checkpoint_every": 2},
    },
    "diffusion": {
        "model": {
            "width": 16,
            "num_layers": 1,
            "sampler": "dpmpp_2m_sde",
            "num_sampling_steps": 2,
            "sigma_min": 0.1,
            "log_every_n_updates": 2,
        },
        "training": {
            "max_steps": 12,
            "batch_size": 16,
            "updates_per_step": 2,
            "checkpoint_every": 4,
            "validate_every": 4,
        },
        "monitor": {"num_transitions": 20},
    },
    "synthesis": {"num_transitions": 100, "chunk_size": 30},
    "model": {"init_args": {"hidden_dim": 16, "log_every_n_updates": 2}},
    "data": {
        "init_args": {
            "batch_size": 16,
            "updates_per_step": 2,
            "dataset": {
                "task": "cartpole_swingup",
                "policy": "random",
                "image_size": 64,
                "num_episodes": 6,
                "time_limit": 0.2,
            },
        }
    },
    "trainer": {"max_steps": 12, "val_check_interval": None, "accelerator": "cpu"},
    "evaluation": {"episodes": 2},
    "checkpoint_every": 4,
}


def collect_pixels(root: Path, episodes: int = 6) -> Path:
    """The dataset of `TINY`."""
    collect(
        "cartpole_swingup", root=str(root), episodes=episodes, image_size=64, num_workers=0, time_limit=0.2
    )
    return root


def arguments(config: Path, root: Path, run_dir: Path, *more: str) -> list[str]:
    """Command line of ``fit``; writes the tiny overlay to ``config``."""
    config.write_text(yaml.safe_dump(TINY))
    where = [f"--run_dir={run_dir}", f"--data.dataset.root={root}"]
    return ["fit", f"--config={BASE}", f"--config={config}", *where, *more]


def fit(config: Path, root: Path, run_dir: Path, *more: str) -> dict[str, Any]:
    """Run ``fit`` in this process, which has to succeed; returns the summary."""
    assert main(arguments(config, root, run_dir, *more)) == 0
    summary: dict[str, Any] = json.loads((run_dir / "summary.json").read_text())
    return summary


def said_by_stages(
    caplog: pytest.LogCaptureFixture, stages: Sequence[str], run: Callable[[], object]
) -> dict[str, str]:
    """What each stage said first while ``run`` was called, by its name."""
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="lightning_synther"):
        run()
    said: dict[str, str] = {}
    for name, _, words in (message.partition(": ") for message in caplog.messages):
        said.setdefault(name, words)
    return {name: said[name] for name in stages if name in said}


def reused(said: dict[str, str]) -> list[str]:
    """The stages that were not run again."""
    return [name for name, words in said.items() if words == "finished earlier, reused"]


def rebuilt(said: dict[str, str]) -> list[str]:
    """The stages that were."""
    return [name for name in said if name not in reused(said)]
