"""Sample a store from a diffusion model, sharded over ranks, as its settings steer and filter it."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from lightning_synther.agents.agent import Agent
from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.guidance import Guidance, check_guidance
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.diffusion.statistics import ColumnStatistics
from lightning_synther.errors import ConfigError
from lightning_synther.stages.config.synthesis import SynthesisConfig
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from lightning_synther.stages.trainer.training import TrainerFactory, interruptible
from lightning_synther.synthesis.filters import COUNTERS, Filters
from lightning_synther.synthesis.policy_guidance import policy_log_density
from lightning_synther.synthesis.sample import StoreWriterCallback, SynthesisData
from lightning_synther.synthesis.support import Support

log = logging.getLogger(__name__)


def sample_store(
    factory: TrainerFactory,
    model: LatentDiffusion,
    path: Path,
    config: SynthesisConfig,
    *,
    seed: int,
    fingerprint: str | None = None,
    agent: Agent | None = None,
    real: Path | None = None,
) -> TransitionStore:
    """Sample ``config.num_transitions`` into ``path``; a store of other settings that is there is an error.

    A store that was interrupted is continued, a finished one taken as it is: an interruption may lie between
    the store and the record of its stage. ``real`` is the store that the model was trained on, whose range filters
    the samples where ``config`` asks for that and names no other. ``agent`` is whose policy guides where ``config``
    names no checkpoint of another.
    """
    model.guidance = make_guidance(config, model, agent)
    data = SynthesisData(
        path,
        spec=model.spec,
        num_transitions=config.num_transitions,
        chunk_size=config.chunk_size,
        seed=seed,
        fingerprint=fingerprint,
        existing="resume",
        filters=make_filters(config, model, real),
    )
    callbacks = [StoreWriterCallback(data), *factory.show_progress("synthesis")]
    trainer = factory.plain_trainer("synthesis", config.precision, callbacks=callbacks)
    with interruptible(trainer):
        trainer.predict(model, datamodule=data, return_predictions=False)
    store = TransitionStore.open(path, expected=model.spec)
    if counts := store.metadata.extra.get("counts"):
        log.info(
            "synthesis: of %d sampled transitions %d were dropped, not finite, and %d outside the data's range",
            *(counts[name] for name in COUNTERS),
        )
    return store


def make_filters(config: SynthesisConfig, model: LatentDiffusion, real: Path | None) -> Filters | None:
    """What ``config`` has rows pass; `ConfigError` where a range is asked for and no data are given."""
    if config.support_margin is None:
        return Filters() if config.drop_non_finite else None
    path = config.support_store or real
    if path is None:
        raise ConfigError(
            "synthesis.support_margin is given without data whose range that could be: give the store that the "
            "model was trained on as synthesis.support_store"
        )
    rows = TransitionStore.open(path, expected=model.spec).rows
    return Filters(Support.of(ColumnStatistics.of(rows), model.spec, config.support_margin))


def make_guidance(config: SynthesisConfig, model: LatentDiffusion, agent: Agent | None = None) -> Guidance:
    """How ``config`` steers the samples of ``model``.

    Raises `ConfigError` for what it cannot follow, see `make_prompted`, and for a policy that is missing or
    of other observations.
    """
    guidance = make_prompted(config, model)
    if not config.policy_guidance:
        return guidance
    if config.policy_checkpoint is not None:
        loaded = load_checkpoint(config.policy_checkpoint)
        if not isinstance(loaded, Agent):
            raise ConfigError(
                f"synthesis.policy_checkpoint {config.policy_checkpoint} holds {type(loaded).__name__}, not an "
                "agent: give the checkpoint of one"
            )
        agent = loaded
    if agent is None:
        raise ConfigError(
            f"synthesis.policy_guidance is {config.policy_guidance}, but there is no policy: give "
            "synthesis.policy_checkpoint, the checkpoint of an agent"
        )
    density = policy_log_density(
        agent, model.normalizer, model.spec, std=config.policy_std, weight=config.policy_guidance
    )
    label = f"{config.policy_guidance} {config.policy_std} {_digest(agent)}"
    return Guidance(guidance.weight, guidance.prompt, density, label=label)


def make_prompted(config: SynthesisConfig, model: LatentDiffusion) -> Guidance:
    """Prompt and weight of ``config``, without its policy.

    Raises `ConfigError` for a prompt or a weight without a conditional model, and for a conditional model
    without a prompt.
    """
    guidance = Guidance(weight=config.guidance_weight, prompt=config.make_prompt())
    check_guidance(guidance, bool(model.conditioner.dim), model.hparams["condition_dropout"])
    if model.conditioner.dim and guidance.prompt is None and guidance.weight != 0:
        raise ConfigError(
            f"the model is conditioned on {', '.join(model.conditioner.sizes)}, but synthesis.prompt is not "
            "set: give data, top or values (or guidance_weight 0 to leave the condition out)"
        )
    if guidance.prompt is not None:
        model.conditioner.check(guidance.prompt)
    return guidance


def _digest(agent: Agent) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for name, value in agent.actor.state_dict().items():
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
