"""Settings of stage 3: how much synthetic experience is made, how it is steered, and what it has to pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lightning_synther.bounds import check_counts
from lightning_synther.data.contents import file_contents, store_contents
from lightning_synther.diffusion.conditioning import Prompt, PromptKind
from lightning_synther.errors import ConfigError


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
        check_counts("synthesis", num_transitions=self.num_transitions, chunk_size=self.chunk_size)
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
        """What steers the samples, for the fingerprint of a stage; empty where nothing does.

        Of a checkpoint, what it holds; raises `DataError` where it is missing.
        """
        prompting = ("prompt", "prompt_fraction", "prompt_values", "guidance_weight")
        policy = ("policy_guidance", "policy_std", "policy_checkpoint")
        keys = [*(prompting if self.prompt or self.guidance_weight != 1 else ())]
        keys += [*(policy if self.policy_guidance else ())]
        inputs = {key: getattr(self, key) for key in keys}
        if self.policy_guidance and self.policy_checkpoint is not None:
            inputs["policy_checkpoint"] = file_contents(self.policy_checkpoint)
        return inputs

    def filtering(self) -> dict[str, Any]:
        """What filters the samples, for the fingerprint of a stage; empty where nothing does.

        Of a store, what it holds; raises `DataError` where it is missing or damaged.
        """
        inputs: dict[str, Any] = {}
        if self.drop_non_finite:
            inputs["drop_non_finite"] = True
        if self.support_margin is not None:
            inputs["support_margin"] = self.support_margin
        if self.support_store is not None:
            inputs["support_store"] = store_contents(self.support_store)
        return inputs
