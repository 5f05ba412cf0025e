"""Settings of the stages and of what is done beside them: trainings, latents, decoder, monitor, comparison, scoring.

Those of the dataset and of the synthesis have files of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from lightning_synther.bounds import check_counts
from lightning_synther.errors import ConfigError

#: fp16 would need a GradScaler on every step of an update; bf16 weights lose soft updates' small steps.
TRAINING_PRECISIONS = ("None", "auto", "32", "32-true", "64", "64-true", "bf16", "bf16-mixed")


def check_training(where: str, max_steps: int | None, updates_per_step: int, precision: object) -> None:
    """Raise `ConfigError` for a length or a precision that no training can have; ``where`` is its key."""
    if max_steps is None or max_steps < 1:
        raise ConfigError(f"{where}.max_steps is {max_steps}: give the number of updates, the data never end")
    if max_steps % updates_per_step:
        raise ConfigError(
            f"{where}.max_steps {max_steps} is not a multiple of updates_per_step {updates_per_step}: "
            "change one of them"
        )
    if str(precision) not in TRAINING_PRECISIONS:
        raise ConfigError(
            f"{where}.precision is {precision!r}: give 32-true, 64-true or bf16-mixed, "
            "other precisions spoil the small steps of an update"
        )


def check_interval(key: str, updates: int) -> None:
    """Raise `ConfigError` for a negative number of ``updates`` between two saves."""
    if updates < 0:
        raise ConfigError(f"{key} is {updates}: give a number of updates, or 0 for none before the end")


@dataclass
class StageTraining:
    """How one stage trains; devices, strategy and precision are those of `trainer` unless given here.

    Args:
        max_steps: gradient updates.
        batch_size: transitions in an update.
        updates_per_step: updates in one pass of Lightning's loop (its overhead is paid once for all of them).
        checkpoint_every: updates between two saves of ``last.ckpt``, which an interrupted stage goes on from;
            rounded down to passes of Lightning's loop, at least one (0: none, it starts anew).
        validate_every: updates between two validations, in whole passes of Lightning's loop; 0: no validation at
            all, not at the end either, and no `diffusion.monitor`, which looks at validations.
        precision: Lightning's precision for this stage, as in ``bf16-mixed``; ``auto`` is that where the
            hardware multiplies bf16, and float32 elsewhere.
    """

    max_steps: int = 100_000
    batch_size: int = 256
    updates_per_step: int = 1
    checkpoint_every: int = 5_000
    validate_every: int = 0
    precision: str | None = None

    def check(self, stage: str) -> None:
        """Raise `ConfigError` for settings that do not go together."""
        check_interval(f"{stage}.training.checkpoint_every", self.checkpoint_every)
        check_counts(f"{stage}.training", batch_size=self.batch_size, updates_per_step=self.updates_per_step)
        check_training(f"{stage}.training", self.max_steps, self.updates_per_step, self.precision)

    def result_inputs(self, precision: str | None) -> dict[str, Any]:
        """The settings that change the result; a change of the others does not rebuild the stage.

        ``precision`` is that of all stages, which counts where this one has none of its own (`TrainerFactory`).
        """
        return {
            "max_steps": self.max_steps,
            "batch_size": self.batch_size,
            "precision": self.precision or precision,
        }


@dataclass
class LatentsConfig:
    """How the dataset is encoded.

    Args:
        views: latent copies of each transition; more than one needs `shift`.
        shift: apply the random shift of stage 1 before encoding.
        batch_size: frame stacks encoded at once.
    """

    views: int = 1
    shift: bool = False
    batch_size: int = 256

    def __post_init__(self) -> None:
        if self.views > 1 and not self.shift:
            raise ConfigError(
                f"diffusion.latents.views is {self.views}, but they differ only by their shifts: "
                "set diffusion.latents.shift to true, or views to 1"
            )
        check_counts("diffusion.latents", views=self.views, batch_size=self.batch_size)


@dataclass
class DecoderConfig:
    """A decoder from latents to frames, to look at them in TensorBoard; nothing else depends on it.

    Args:
        max_steps: gradient updates (0: no decoder).
        batch_size: latents in an update.
        width: channels of the decoder's coarsest map.
        lr: learning rate.
        checkpoint_every: updates between two saves of ``last.ckpt``.
        precision: as for the other stages.
    """

    max_steps: int = 0
    batch_size: int = 64
    width: int = 128
    lr: float = 1e-3
    checkpoint_every: int = 1_000
    precision: str | None = None

    def __post_init__(self) -> None:
        if self.max_steps:
            self.training().check("decoder")
            check_counts("decoder", batch_size=self.batch_size, width=self.width)

    def training(self) -> StageTraining:
        """How it trains."""
        return StageTraining(
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            checkpoint_every=self.checkpoint_every,
            precision=self.precision,
        )


@dataclass
class MonitorConfig:
    """How the diffusion model's samples are watched while it trains.

    Args:
        num_transitions: transitions sampled at a validation and compared with the real ones, on rank zero (0: none):
            at the first, then as often as 2 % of the training's time allow. They never change the training. Without
            held-out data, which they are then not compared with, a validation is nothing but this look.
    """

    num_transitions: int = 1_000

    def __post_init__(self) -> None:
        if self.num_transitions == 1 or self.num_transitions < 0:
            raise ConfigError(
                f"diffusion.monitor.num_transitions is {self.num_transitions}: give 2 or more, or 0 for none"
            )


@dataclass
class ResynthesisConfig:
    """What is special to a diffusion model that is trained again and again in an online run.

    Args:
        start: train a new model every time, as published (``scratch``), or go on from the one before
            (``warm``), with the normaliser of the transitions as they are now and the learning rate's whole
            schedule again.
        fidelity_transitions: synthetic and real transitions that are compared after every training (0: none).
    """

    start: Literal["scratch", "warm"] = "scratch"
    fidelity_transitions: int = 20_000

    def __post_init__(self) -> None:
        if self.start not in ("scratch", "warm"):
            raise ConfigError(f"resynthesis.start is {self.start!r}: give 'scratch' or 'warm'")
        if self.fidelity_transitions == 1 or self.fidelity_transitions < 0:
            raise ConfigError(
                f"resynthesis.fidelity_transitions is {self.fidelity_transitions}: give 2 or more, or 0 for none"
            )


@dataclass
class ComparisonConfig:
    """What is trained beside the agent, to compare with.

    Args:
        real_only: train the same agent for the same updates on real transitions only.
        synthetic_only: and on synthetic ones only.
    """

    real_only: bool = False
    synthetic_only: bool = False


@dataclass
class EvaluationConfig:
    """How an agent is scored: by ``fit`` at the end, and by ``test``; of ``validate``, how many episodes.

    Args:
        episodes: evaluation episodes.
        seed: what the seeds of the test episodes derive from. Training and ``validate`` run others, those of
            `data.eval_seed` (0), so that a checkpoint can be chosen on them.
    """

    episodes: int = 10
    seed: int = 1

    def __post_init__(self) -> None:
        check_counts("evaluation", episodes=self.episodes)
