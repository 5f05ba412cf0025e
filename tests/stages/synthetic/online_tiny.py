"""A tiny online run with synthetic replay: its command line, and what it printed into TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.stages.tiny import CONFIGS

#: cartpole_swingup, 20 agent steps an episode; resyntheses after 40, 60, 80 and 100 agent steps.
CARTPOLE = ("--data.env.task=cartpole_swingup", "--data.env.time_limit=0.2")
FLAGS = (
    "--data.start_steps=40",
    "--data.batch_size=16",
    "--data.resynthesise_every=20",
    "--data.replay_capacity=70",
    "--model.hidden_dim=16",
    "--model.log_every_n_updates=20",
    "--diffusion.model.width=16",
    "--diffusion.model.num_layers=1",
    "--diffusion.model.sampler=dpmpp_2m_sde",
    "--diffusion.model.num_sampling_steps=4",
    "--diffusion.model.sigma_min=0.1",
    "--diffusion.model.sigma_max=10.0",
    "--diffusion.model.log_every_n_updates=10",
    "--diffusion.training.max_steps=40",
    "--diffusion.training.updates_per_step=10",
    "--diffusion.training.checkpoint_every=20",
    "--synthesis.num_transitions=120",
    "--synthesis.chunk_size=40",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.max_steps=1300",
    "--checkpoint_every=300",
    "--keep_every=0",
    "--evaluation.episodes=2",
)


def arguments(run_dir: Path, *more: str, env: tuple[str, ...] = CARTPOLE) -> list[str]:
    """The command line of ``fit``."""
    config = f"--config={CONFIGS / 'synther_online.yaml'}"
    return ["fit", config, f"--run_dir={run_dir}", *env, *FLAGS, *more]


def measured(run_dir: Path) -> dict[str, Any]:
    """The summary's figures, times left out."""
    summary = json.loads((run_dir / "summary.json").read_text())
    resyntheses = [
        {name: value for name, value in figures.items() if not name.startswith("seconds")}
        for figures in summary["online"]["resyntheses"]
    ]
    return {"return": summary["return_mean"], "resyntheses": resyntheses}


def scalars(run_dir: Path, tag: str, folder: str = "agent") -> dict[int, float]:
    """The values of a TensorBoard tag, without its stage, by step; the last one where a step was logged again."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run_dir / "tensorboard" / folder))
    events.Reload()
    [name] = [name for name in events.Tags()["scalars"] if f"/{name}".endswith(f"/{tag}")]
    return {event.step: event.value for event in events.Scalars(name)}
