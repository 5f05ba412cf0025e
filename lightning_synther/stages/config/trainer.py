"""Settings of the final Trainer that a run cannot honour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_synther.errors import ConfigError

#: Settings of the final Trainer that the run decides itself.
OWN_TRAINER_SETTINGS = (
    "logger",
    "default_root_dir",
    "enable_model_summary",
    "num_sanity_val_steps",
    "max_epochs",
)
#: Settings of Lightning's automatic optimization, and what to do without them.
MANUAL_OPTIMIZATION = {
    "accumulate_grad_batches": "accumulate gradients for: raise data.batch_size instead, and remove it",
    "gradient_clip_val": "clip gradients for: remove it (a diffusion model has model.grad_clip)",
    "gradient_clip_algorithm": "clip gradients for: remove it (a diffusion model has model.grad_clip)",
}


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for what the run decides itself, and what needs automatic optimization."""
    for key in OWN_TRAINER_SETTINGS:
        if settings.get(key) is not None:
            raise ConfigError(f"trainer.{key} is given, but a run decides it itself: remove it")
    for key, remedy in MANUAL_OPTIMIZATION.items():
        if settings.get(key) not in (None, 1 if key == "accumulate_grad_batches" else None):
            raise ConfigError(
                f"trainer.{key} is {settings[key]}, but an update has several losses and optimizers, "
                f"which Lightning cannot {remedy}"
            )
