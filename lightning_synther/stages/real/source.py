"""What the stages before generation hand to it: stores of real transitions, whatever they were made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from lightning_synther.agents.agent import Agent
from lightning_synther.data.store import TransitionStore
from lightning_synther.stages.record.stage import Stage
from lightning_synther.synthesis.projector import Thumbnails

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    #: Draws stores of real and of synthetic transitions side by side.
    Picture = Callable[[TransitionStore, TransitionStore], Figure]


@dataclass(frozen=True)
class RealTransitions:
    """Two stores of real transitions, one to train on and perhaps one of held-out episodes.

    Attributes:
        stage: the stage that wrote them; its name says what their observations are.
        encoder_checkpoint: of the encoder that made the observations; None where they are the data's own.
        agent_fingerprint: identifies the agent of `make_agent`.
        make_agent: makes an agent that already acts on such observations; None where there is none.
        pictures: what can be drawn of such transitions, by name.
        thumbnails: what the observations of the store to train on look like; None for states.
    """

    stage: Stage
    encoder_checkpoint: Path | None = None
    agent_fingerprint: str = ""
    make_agent: Callable[[], Agent] | None = None
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    thumbnails: Thumbnails | None = None

    @property
    def train(self) -> Path:
        """The store to train on."""
        return self.stage.directory / "train"

    @property
    def heldout(self) -> Path | None:
        """The store of held-out episodes."""
        path = self.stage.directory / "heldout"
        return path if path.exists() else None


@dataclass(frozen=True)
class Preview:
    """What is known of real transitions before any stage has run, so that settings can be checked.

    Attributes:
        observation: what they are.
        observation_dim: size of an observation.
        gamma: discount of one step.
        agent: an untrained twin of the agent that will act on such observations; None where there is none.
        no_agent: why there is none.
        encoder_config: sizes of the encoder that will make the observations.
    """

    observation: Literal["latents", "states"]
    observation_dim: int
    gamma: float
    agent: Agent | None = None
    no_agent: str = ""
    encoder_config: Mapping[str, Any] | None = None


class Source(Protocol):
    """Where a chain's real transitions come from."""

    def preview(self) -> Preview:
        """What will come; raises `ConfigError` now for what a stage would refuse hours later."""

    def provide(self) -> RealTransitions:
        """Bring the stages of this source to *finished*."""

    def show(self, real: RealTransitions, synthetic: Stage) -> None:
        """Show synthetic transitions in the ways that take stages of their own, where any are asked for."""
