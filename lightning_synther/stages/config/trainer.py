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
#: Settings that end a training before it has made its updates.
SHORTENING = {
    "max_time": "a run is as long as trainer.max_steps says, and an interrupted one goes on: end it from outside, and",
    "fast_dev_run": "its few batches would pass for a finished training: give a small trainer.max_steps, and",
}
#: Settings of Lightning's automatic optimization, and what to do without them.
MANUAL_OPTIMIZATION = {
    "accumulate_grad_batches": "accumulate gradients for: raise data.batch_size instead, and remove it",
    "gradient_clip_val": "clip gradients for: remove it (a diffusion model has model.grad_clip)",
    "gradient_clip_algorithm": "clip gradients for: remove it (a diffusion model has model.grad_clip)",
}


def check_trainer(settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` for what the run decides itself, cuts it short, or needs automatic optimization."""
    for key in OWN_TRAINER_SETTINGS:
        if settings.get(key) is not None:
            raise ConfigError(f"trainer.{key} is given, but a run decides it itself: remove it")
    for key, reason in SHORTENING.items():
        if settings.get(key) not in (None, False):
            raise ConfigError(f"trainer.{key} is {settings[key]}, but {reason} remove it")
    if isinstance(settings.get("val_check_interval"), float):
        raise ConfigError(
            f"trainer.val_check_interval is {settings['val_check_interval']}, a share of an epoch, but the data never "
            "end: give a number of Trainer batches, of data.updates_per_step updates each"
        )
    for key, remedy in MANUAL_OPTIMIZATION.items():
        if settings.get(key) not in (None, 1 if key == "accumulate_grad_batches" else None):
            raise ConfigError(
                f"trainer.{key} is {settings[key]}, but an update has several losses and optimizers, "
                f"which Lightning cannot {remedy}"
            )
