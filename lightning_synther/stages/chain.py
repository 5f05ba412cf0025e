"""The stages before the agent, from a dataset to the two stores that it trains on.

``source -> diffusion -> synthesis``, where a source makes real transitions of pixels (dataset, encoder, latents). Each
is an ordinary Trainer call, or a pass over the data, on ordinary modules, remembered in the run directory by `Stage`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lightning_synther.stages.real.source import Preview, Source
from lightning_synther.stages.synthetic.generation import Generation


@dataclass(frozen=True)
class Artefacts:
    """What the chain hands to the agent: paths, and the fingerprint of all that led to them."""

    encoder_checkpoint: Path | None
    real: Path
    synthetic: Path
    fingerprint: str


@dataclass(frozen=True)
class Chain:
    """The stages before the agent, as one config describes them."""

    source: Source
    generation: Generation

    def check(self) -> Preview:
        """What the agent will see.

        Raises `ConfigError` now for what a stage would refuse hours later; builds the networks to find out.
        """
        preview = self.source.preview()
        self.generation.check(preview)
        return preview

    def run(self) -> Artefacts:
        """Bring every stage to *finished*, in order."""
        real = self.source.provide()
        synthetic = self.generation.run(real)
        self.source.show(real, synthetic)
        return Artefacts(
            encoder_checkpoint=real.encoder_checkpoint,
            real=real.train,
            synthetic=synthetic.directory / "store",
            fingerprint=synthetic.fingerprint,
        )
