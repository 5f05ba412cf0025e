"""Settings of the stages before the agent, which a config has beside `model`, `data` and `trainer`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lightning_synther.diffusion.conditioning import Prompt, PromptKind
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


@dataclass
class DatasetConfig:
    """Which pixels the chain starts from.

    Args:
        task: dm_control task, as in ``cheetah_run``.
        policy: V-D4RL's dataset kind (random, medium, expert, ...).
        image_size: 84 (HDF5 files) or 64 (NPZ files).
        root: folder that holds V-D4RL's layout, ``<root>/main/<task>/<policy>/<84px|64px>/``.
        source: where the data may come from; ``auto`` takes local files, else downloads, else collects.
        num_episodes: use the first so many episodes, and collect so many (None: all; 200 when collecting).
        holdout_fraction: share of whole episodes, the last ones, kept from all training, to judge fidelity
            against.
        collect_seed: seed of a collection.
        mirror: another base URL to download from.
        frame_stack: frames in an observation.
        action_repeat: environment steps per action, as in the data.
        time_limit: simulated seconds of an episode, in a collection and in evaluation (None: the task's own).
        n_step: steps folded into one transition's return.
        gamma: discount of one step.
    """

    task: str = "cheetah_run"
    policy: str = "medium"
    image_size: Literal[84, 64] = 84
    root: str = "data/vd4rl"
    source: Literal["auto", "local", "download", "collect"] = "auto"
    num_episodes: int | None = None
    holdout_fraction: float = 0.05
    collect_seed: int = 0
    mirror: str | None = None
    frame_stack: int = 3
    action_repeat: int = 2
    time_limit: float | None = None
    n_step: int = 3
    gamma: float = 0.99

    def __post_init__(self) -> None:
        if not 0.0 <= self.holdout_fraction < 1.0:
            raise ConfigError(f"dataset.holdout_fraction is {self.holdout_fraction}: give a share in [0, 1)")
        if self.num_episodes is not None and self.num_episodes < 1:
            raise ConfigError(
                f"dataset.num_episodes is {self.num_episodes}: give at least 1, or null for all"
            )

    def env(self) -> dict[str, Any]:
        """The environment that agents trained on this dataset act in (fields of `EnvConfig`)."""
        env = {
            "task": self.task,
            "observation": "pixels",
            "image_size": self.image_size,
            "frame_stack": self.frame_stack,
            "action_repeat": self.action_repeat,
        }
        return env if self.time_limit is None else {**env, "time_limit": self.time_limit}

    def files(self) -> dict[str, Any]:
        """Which files are meant, without what is made of them."""
        views = ("holdout_fraction", "frame_stack", "n_step", "gamma")
        return {key: value for key, value in asdict(self).items() if key not in views}

    def windows(self) -> dict[str, Any]:
        """How transitions are cut from episodes."""
        return {"frame_stack": self.frame_stack, "n_step": self.n_step, "gamma": self.gamma}


@dataclass
class StageTraining:
    """How one stage trains; devices, strategy and precision are those of `trainer` unless given here.

    Args:
        max_steps: gradient updates.
        batch_size: transitions in an update.
        updates_per_step: updates in one pass of Lightning's loop (its overhead is paid once for all of them).
        checkpoint_every: updates between two saves of ``last.ckpt``, which an interrupted stage goes on from.
        validate_every: updates between two validations (0: none before the end).
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
        _check_counts(f"{stage}.training", batch_size=self.batch_size, updates_per_step=self.updates_per_step)
        check_training(f"{stage}.training", self.max_steps, self.updates_per_step, self.precision)

    def result_inputs(self) -> dict[str, Any]:
        """The settings that change the result; a change of the others does not rebuild the stage."""
        keep = ("max_steps", "batch_size", "precision")
        return {key: value for key, value in asdict(self).items() if key in keep}


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
        _check_counts("diffusion.latents", views=self.views, batch_size=self.batch_size)


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
            _check_counts("decoder", batch_size=self.batch_size, width=self.width)

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
        num_transitions: transitions sampled at every validation and compared with the real ones, on rank zero
            (0: none). They never change the training.
    """

    num_transitions: int = 1_000

    def __post_init__(self) -> None:
        if self.num_transitions == 1 or self.num_transitions < 0:
            raise ConfigError(
                f"diffusion.monitor.num_transitions is {self.num_transitions}: give 2 or more, or 0 for none"
            )


@dataclass
class SynthesisConfig:
    """How much synthetic experience is made, and how it is steered.

    Args:
        num_transitions: size of the synthetic store.
        chunk_size: transitions written (and, after an interruption, resumed) at once.
        precision: Lightning's precision while sampling, or ``auto`` as for training.
        prompt: conditions of the synthetic transitions, for a conditional model: those of random training
            transitions (``data``), of the ``prompt_fraction`` of them that is largest in the first condition
            (``top``), or ``prompt_values`` (``values``).
        prompt_fraction: share of the prompt ``top``.
        prompt_values: numbers of the prompt ``values``.
        guidance_weight: of classifier-free guidance; 1: as conditioned, 0: without condition, more:
            exaggerated.
        policy_guidance: weight of an agent's log-likelihood of the actions (0: none).
        policy_std: deviation of the agent's actions in it.
        policy_checkpoint: that agent; None for the one of stage 1.
        drop_non_finite: replace transitions with numbers that are not finite instead of stopping at them.
        support_margin: replace transitions outside the training data's range, widened by so many standard
            deviations of each column (None: keep them). Samples scatter a little around saturated values, so 0 drops
            many. What is dropped is counted, in the store's metadata and the summary.
        support_store: store whose range that is; ``fit`` takes the one that the model was trained on.
    """

    num_transitions: int = 5_000_000
    chunk_size: int = 10_000
    precision: str | None = None
    prompt: PromptKind | None = None
    prompt_fraction: float = 0.25
    prompt_values: list[float] = field(default_factory=list)
    guidance_weight: float = 1.0
    policy_guidance: float = 0.0
    policy_std: float = 0.3
    policy_checkpoint: str | None = None
    drop_non_finite: bool = False
    support_margin: float | None = None
    support_store: str | None = None

    def __post_init__(self) -> None:
        _check_counts("synthesis", num_transitions=self.num_transitions, chunk_size=self.chunk_size)
        if self.policy_guidance < 0 or self.policy_std <= 0:
            raise ConfigError(
                f"synthesis.policy_guidance is {self.policy_guidance} and policy_std {self.policy_std}: give "
                "a weight of at least 0 and a deviation above 0"
            )
        self.make_prompt()
        if self.support_margin is not None and not self.support_margin >= 0:
            raise ConfigError(f"synthesis.support_margin is {self.support_margin}: give 0 or more, or null")
        if self.support_margin is None and self.support_store is not None:
            raise ConfigError(
                "synthesis.support_store is given without support_margin: give both, or neither"
            )

    def make_prompt(self) -> Prompt | None:
        """The prompt, checked; None where none is asked for."""
        if self.prompt is None:
            if self.prompt_values:
                raise ConfigError(
                    "synthesis.prompt_values is given without a prompt: set synthesis.prompt=values"
                )
            return None
        return Prompt(self.prompt, self.prompt_fraction, tuple(self.prompt_values))

    def steering(self) -> dict[str, Any]:
        """What steers the samples, for the fingerprint of a stage; empty where nothing does."""
        prompting = ("prompt", "prompt_fraction", "prompt_values", "guidance_weight")
        policy = ("policy_guidance", "policy_std", "policy_checkpoint")
        keys = [*(prompting if self.prompt or self.guidance_weight != 1 else ())]
        keys += [*(policy if self.policy_guidance else ())]
        return {key: getattr(self, key) for key in keys}

    def filtering(self) -> dict[str, Any]:
        """What filters the samples, for the fingerprint of a stage; empty where nothing does."""
        keys = ("drop_non_finite", "support_margin", "support_store")
        return {
            key: getattr(self, key)
            for key in keys
            if not (getattr(self, key) is None or getattr(self, key) is False)
        }


@dataclass
class ResynthesisConfig:
    """What is special to a diffusion model that is trained again and again in an online run.

    Args:
        start: train a new model every time, as published (``scratch``), or go on from the one before
            (``warm``), with the
            normaliser of the transitions as they are now and the learning rate's whole schedule again.
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
        real_only: train the same agent for the same updates on real latents only.
    """

    real_only: bool = False


@dataclass
class EvaluationConfig:
    """How an agent is scored at the end.

    Args:
        episodes: evaluation episodes.
        seed: what the episodes' seeds derive from; training validates on those of seed 0.
    """

    episodes: int = 10
    seed: int = 1

    def __post_init__(self) -> None:
        _check_counts("evaluation", episodes=self.episodes)


def _check_counts(where: str, **counts: int) -> None:
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"{where}.{name} is {count}: give at least 1")
