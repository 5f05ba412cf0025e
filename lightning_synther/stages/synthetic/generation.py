"""Stages 2 and 3: a diffusion model of real transitions, and the synthetic store that is sampled from it.

Nothing here knows what the transitions were made from: latents of pixels and states are the same flat rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback
from torch import Tensor

from lightning_synther.data.conditions import read_conditions
from lightning_synther.data.datamodules import RowData
from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.stages.config.module import ModuleConfig
from lightning_synther.stages.config.sections import MonitorConfig, StageTraining
from lightning_synther.stages.config.synthesis import SynthesisConfig
from lightning_synther.stages.real.source import Preview, RealTransitions
from lightning_synther.stages.record.ensure import ensure
from lightning_synther.stages.record.ranks import barrier, is_rank_zero
from lightning_synther.stages.record.stage import Stage
from lightning_synther.stages.synthetic.judge import judge
from lightning_synther.stages.synthetic.sampling import make_prompted, sample_store
from lightning_synther.stages.trainer.training import TrainerFactory
from lightning_synther.synthesis.conditions import COMPUTED, compute_conditions
from lightning_synther.synthesis.monitor import FidelityMonitor
from lightning_synther.synthesis.relevance import critics
from lightning_synther.transition import TransitionSpec

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """The diffusion model and the synthesis, as one config describes them.

    Attributes:
        conditions: what the model is conditioned on: relevance functions, or arrays beside the rows.
    """

    factory: TrainerFactory
    model: ModuleConfig
    training: StageTraining
    monitor: MonitorConfig
    synthesis: SynthesisConfig
    conditions: Sequence[str] = ()

    def check(self, preview: Preview) -> None:
        """Raise `ConfigError` for settings that do not go together; builds the networks to find out."""
        self.training.check("diffusion")
        if preview.agent is None and ("td_error" in self.conditions or self._guided_by_earlier_agent):
            raise ConfigError(
                f"{preview.no_agent}: diffusion.conditions cannot hold td_error, and synthesis.policy_guidance "
                "needs a policy_checkpoint"
            )
        if preview.agent is not None and "td_error" in self.conditions:
            critics(preview.agent)
        spec = TransitionSpec(preview.observation_dim, 1, preview.gamma)
        model = self._build(spec, dict.fromkeys(self.conditions, 1) or None)  # own ones are known later
        if all(name in COMPUTED for name in self.conditions):
            make_prompted(self.synthesis, model)

    @property
    def _guided_by_earlier_agent(self) -> bool:
        """Whether the policy that guides the samples is that of an agent trained before."""
        return self.synthesis.policy_guidance > 0 and self.synthesis.policy_checkpoint is None

    def _build(self, spec: TransitionSpec, conditions: dict[str, int] | None) -> LatentDiffusion:
        model = self.model.build(spec=spec.to_dict(), conditions=conditions)
        assert isinstance(model, LatentDiffusion)
        return model

    def run(self, real: RealTransitions) -> Stage:
        """Both stages, in order; returns that of the synthetic store."""
        return self.synthesise(self.train(real), real)

    def train(self, real: RealTransitions) -> Stage:
        """Stage 2: the diffusion model over the rows of ``real``."""
        inputs = {
            real.stage.name: real.stage.fingerprint,
            "model": self.model.inputs(),
            "training": self.training.result_inputs(self.factory.precision),
            "seed": self.factory.seed,
        }
        if self.conditions:
            inputs["conditions"] = list(self.conditions)
        stage = Stage(self.factory.run_dir, "diffusion", inputs)

        def build() -> dict[str, Any]:
            columns, sizes = self._condition(real)

            def make() -> tuple[LatentDiffusion, RowData]:
                train = TransitionStore.open(real.train)
                model = self._build(train.spec, sizes)
                model.fit_normalizer(train.rows, columns)
                return model, self._rows(real)

            self.factory.train(stage, self.training, make, self._watch(real))
            return {}

        ensure(stage, build)
        return stage

    def _condition(self, real: RealTransitions) -> tuple[Tensor | None, dict[str, int] | None]:
        """Columns of the training rows' conditions, written beside the rows, and how many each has."""
        names = list(self.conditions)
        if not names:
            return None, None
        if is_rank_zero():
            compute_conditions(
                [path for path in (real.train, real.heldout) if path is not None],
                names,
                seed=self.factory.seed,
                agent=real.make_agent() if "td_error" in names and real.make_agent else None,
                agent_fingerprint=real.agent_fingerprint,
            )
        barrier()
        return read_conditions(real.train, names)

    def _rows(self, real: RealTransitions) -> RowData:
        return RowData(
            str(real.train),
            heldout=_text(real.heldout),
            batch_size=self.training.batch_size,
            updates_per_step=self.training.updates_per_step,
            seed=self.factory.seed,
            conditions=list(self.conditions),
        )

    def _watch(self, real: RealTransitions) -> list[Callback]:
        if not self.monitor.num_transitions:
            if real.heldout is None and self.training.validate_every:
                log.warning(
                    "diffusion: training.validate_every is %d, but there is nothing to validate on: hold data out "
                    "(holdout_fraction of the dataset), or watch samples (diffusion.monitor.num_transitions)",
                    self.training.validate_every,
                )
            return []
        heldout = TransitionStore.open(real.heldout) if real.heldout is not None else None
        return [FidelityMonitor(TransitionStore.open(real.train), heldout, self.monitor.num_transitions)]

    def synthesise(self, diffusion: Stage, real: RealTransitions) -> Stage:
        """Stage 3: the synthetic store, and how faithful it is."""
        config = self.synthesis
        inputs = {
            "diffusion": diffusion.fingerprint,
            "num_transitions": config.num_transitions,
            "chunk_size": config.chunk_size,
            "precision": config.precision or self.factory.precision,
            "seed": self.factory.seed,
            **config.steering(),
            **config.filtering(),
        }
        stage = Stage(self.factory.run_dir, "synthesis", inputs)

        def build() -> dict[str, Any]:
            model = LatentDiffusion.load_from_checkpoint(diffusion.final_checkpoint, map_location="cpu")
            store = sample_store(
                self.factory,
                model,
                stage.directory / "store",
                config,
                seed=self.factory.seed,
                fingerprint=stage.fingerprint,
                agent=real.make_agent() if self._guided_by_earlier_agent and real.make_agent else None,
                real=real.train,
            )
            if not is_rank_zero():
                return {}
            scores = judge(self.factory, real, store)
            filtered = store.metadata.extra.get("counts")
            return {"transitions": config.num_transitions, "fidelity": scores, "filtered": filtered}

        ensure(stage, build)
        return stage


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
