"""Synthetic experience replay in the online loop: batches of real transitions and of synthetic ones made from them.

Every so many agent steps a diffusion model is trained on the replay memory and the synthetic transitions are replaced
by its samples (SynthER, Lu et al. 2023, section 4.2 and appendix B). How that is done is somebody else's matter
(`Resynthesise`; the command line's is `stages.synthetic.resynthesis.Resynthesis`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_synther.agents.agent import Agent
from lightning_synther.data.datamodules import gather
from lightning_synther.data.mixing import composition
from lightning_synther.data.store import TransitionStore
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.online.interaction import OnlineData
from lightning_synther.transition import Transition, TransitionSpec

log = logging.getLogger(__name__)

#: Figures of a resynthesis that are printed; all of them are logged.
SHOWN = {
    "loss": "loss",
    "fidelity/ks_mean": "KS",
    "fidelity/dynamics_error": "dynamics error",
    "seconds_training": "s training",
    "seconds_sampling": "s sampling",
}


@dataclass(frozen=True)
class Experience:
    """What synthetic transitions are made from: the real ones, as they are after ``num_steps`` agent steps.

    Attributes:
        rows: (N, D) of ``spec``.
        spec: their layout.
        num_steps: agent steps until now.
        previous: those until the resynthesis before, whose model and store are there; None for the first.
        agent: the agent as it is now.
    """

    rows: Tensor
    spec: TransitionSpec
    num_steps: int
    previous: int | None
    agent: Agent


@dataclass(frozen=True)
class Synthesis:
    """What one resynthesis made: a finished store, and what was measured about it."""

    store: Path
    figures: dict[str, float]


class Resynthesise(Protocol):
    """Makes synthetic transitions from real ones; a function of its arguments alone, and resumable."""

    def __call__(self, real: Experience) -> Synthesis:
        """Train on ``real``, and sample."""
        ...

    def open(self, num_steps: int) -> TransitionStore:
        """The store that was made after ``num_steps`` agent steps."""
        ...

    def forget(self, before: int) -> None:
        """Remove what was made before the resynthesis after ``before`` agent steps: no checkpoint needs it."""
        ...


class OnlineSynthERData(OnlineData):
    """Online interaction with synthetic experience replay.

    After every ``resynthesise_every`` agent steps, counted with the random ones (published: 10,000 environment steps,
    which are agent steps at ``env.action_repeat`` 1), the synthetic transitions are replaced. Until the first time,
    and wherever fewer are stored than a batch needs, batches are real altogether, as published.

    Args:
        ratio: synthetic share of a batch, truncated to whole transitions.
        resynthesise_every: agent steps between two resyntheses.
        terminals: model the ends of episodes; without, every synthetic transition goes on, which is right where
            episodes end by time limits alone, as in dm_control.
        interaction: arguments of `OnlineData`.
    """

    resynthesise: Resynthesise | None = None

    def __init__(
        self,
        *,
        ratio: float = 0.5,
        resynthesise_every: int = 10_000,
        terminals: bool = False,
        **interaction: Any,
    ) -> None:
        super().__init__(**interaction)
        composition(0, self.batch_size, "ratio", ratio)
        if resynthesise_every < 1:
            raise ConfigError(
                f"data.resynthesise_every is {resynthesise_every}: give a number of agent steps above 0, or use "
                "OnlineData for a run without synthetic transitions"
            )
        self.ratio, self.resynthesise_every, self.terminals = ratio, resynthesise_every, terminals
        self.resynthesised_at: int | None = None  # agent steps
        self._saved_at: int | None = None
        self._synthetic: Tensor | None = None
        self._history: list[dict[str, float]] = []
        self._sizes: list[int] = []

    def setup(self, stage: str) -> None:
        """Refuse what would fail at the first resynthesis."""
        super().setup(stage)
        if stage != "fit":
            return
        if self.resynthesise is None:
            raise ConfigError(
                "OnlineSynthERData does not know how to make synthetic transitions: run it by `fit` with a config, or "
                "set its attribute `resynthesise`"
            )
        if self._trainer.world_size > 1:
            raise ConfigError(
                "synthetic replay in the online loop runs in one process: set trainer.devices to 1 "
                f"(it is {self._trainer.world_size} processes now)"
            )

    def row_spec(self, agent: Agent) -> TransitionSpec:
        """Layout of the rows that are modelled for ``agent``."""
        perception = agent.perception
        return TransitionSpec(perception.shape[0], perception.action_dim, self.gamma, self.terminals)

    @property
    def num_synthetic(self) -> int:
        """Synthetic transitions to draw from."""
        return 0 if self._synthetic is None else len(self._synthetic)

    def on_steps_taken(self) -> None:
        """Resynthesise where it is due."""
        every, steps = self.resynthesise_every, self.environments.num_steps
        if steps // every <= (self.resynthesised_at or 0) // every:
            return
        assert self.resynthesise is not None
        agent = self._trainer.lightning_module
        assert isinstance(agent, Agent)
        with self.time_split.measure("resynthesis"):
            real, figures = self.real_transitions(agent)
            spec = self.row_spec(agent)
            rows = self._flatten(real, spec)
            made = self.resynthesise(Experience(rows, spec, steps, self.resynthesised_at, agent))
            self._take(steps)
        self._report(steps, {**figures, **made.figures})

    def real_transitions(self, agent: Agent) -> tuple[Transition, dict[str, float]]:
        """The replay memory as ``agent`` sees it now, as vectors, and figures about that."""
        replay = self.environments.replay
        return replay.unflatten(replay.rows()), {}

    def _flatten(self, real: Transition, spec: TransitionSpec) -> Tensor:
        num_ends = int((real.discount == 0).sum())
        if num_ends and not self.terminals:
            raise DataError(
                f"{num_ends} of {len(real.discount)} transitions ended their episode for good, but data.terminals is "
                "false, so that no synthetic one would: set it to true"
            )
        return spec.flatten(real)

    def draw(self, updates: range) -> list[Transition]:
        """The batches of some updates, in each real transitions first."""
        replay = self.environments.replay
        rows = torch.empty(len(updates), self.batch_size, sum(replay.sizes))
        for update, block in zip(updates, rows, strict=True):
            num_real, num_synthetic = composition(
                update, self.batch_size, "ratio", self.ratio, self.num_synthetic
            )
            generator = self.generator(update)
            if num_synthetic:
                assert self._synthetic is not None
                gather(self._synthetic, generator, num_synthetic, out=block[num_real:])
            if num_real:
                replay.draw(num_real, generator, out=block[:num_real])
        return [replay.unflatten(block) for block in rows]

    def synthetic_batch(self, generator: np.random.Generator) -> Transition:
        """A whole batch of synthetic transitions."""
        assert self._synthetic is not None
        rows = gather(self._synthetic, generator, self.batch_size)
        return Transition(*rows.split(self._sizes, dim=1))

    def results(self) -> dict[str, Any]:
        """Also the figures of every resynthesis."""
        return {**super().results(), "resyntheses": self._history}

    def state_dict(self) -> dict[str, Any]:
        """Also which synthetic transitions are drawn from; they have their own files.

        A checkpoint that is being written replaces the one before: what is older than both needs can go.
        """
        if self.resynthesise is not None and self._saved_at is not None:
            self.resynthesise.forget(self._saved_at)
        self._saved_at = self.resynthesised_at
        state = {"resynthesised_at": self.resynthesised_at, "resyntheses": list(self._history)}
        return {**super().state_dict(), **state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        super().load_state_dict(state_dict)
        if self._trainer.state.fn != "fit":
            return
        self._history = list(state_dict["resyntheses"])
        steps = self._saved_at = state_dict["resynthesised_at"]
        if steps is not None:
            self._take(steps)

    def _take(self, steps: int) -> None:
        """Draw from the synthetic transitions made after ``steps`` agent steps from now on."""
        assert self.resynthesise is not None
        store = self.resynthesise.open(steps)
        fields = store.spec.unflatten(store.mapped)
        self._sizes = [field.shape[1] for field in fields]
        self._synthetic = torch.cat(list(fields), dim=1)
        self.resynthesised_at = steps

    def _report(self, steps: int, figures: dict[str, float]) -> None:
        """Log what was measured, over agent steps, and where the time has gone so far."""
        self._history.append({"agent_steps": steps, **figures})
        seconds = self.time_split.seconds
        shares = {f"time/{name}": value for name, value in seconds.items()}
        if "updates" in seconds and seconds["updates"] > 0:
            shares["time/resynthesis_per_update_time"] = seconds["resynthesis"] / seconds["updates"]
        metrics = {f"resynthesis/{name}": value for name, value in figures.items()} | shares
        for logger in self._trainer.loggers:
            logger.log_metrics(metrics, step=steps)
        shown = [f"{label} {figures[name]:.3g}" for name, label in SHOWN.items() if name in figures]
        log.info("resynthesis after %d agent steps: %s", steps, ", ".join(shown))
