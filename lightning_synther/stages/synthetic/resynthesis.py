"""Synthetic transitions in the middle of an online run: a diffusion model on the replay memory, and its samples.

What the chain does once for a dataset is done here again and again, each time as a `Stage` of its own,
``<run>/agent/resynthesis/<agent steps>/``: finished ones are reused, and one that was killed goes on from its last
checkpoint, when the resumed agent has come to the same agent step. Inputs hold a digest of the replay memory.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_synther.agents.agent import Agent
from lightning_synther.data.conditions import read_conditions
from lightning_synther.data.datamodules import RowData
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.online.synthetic import Experience, Synthesis
from lightning_synther.seeding import derive_seed
from lightning_synther.stages.config.module import ModuleConfig
from lightning_synther.stages.config.sections import ResynthesisConfig, StageTraining
from lightning_synther.stages.config.synthesis import SynthesisConfig
from lightning_synther.stages.record.ensure import ensure
from lightning_synther.stages.record.stage import Stage, read_json, write_json
from lightning_synther.stages.synthetic.sampling import make_prompted, sample_store
from lightning_synther.stages.trainer.callbacks import KeepMetric
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from lightning_synther.stages.trainer.training import TrainerFactory, fit, stage_seed
from lightning_synther.synthesis.conditions import COMPUTED, compute_conditions
from lightning_synther.synthesis.fidelity import fidelity
from lightning_synther.synthesis.filters import COUNTERS
from lightning_synther.synthesis.relevance import critics
from lightning_synther.transition import TransitionSpec

#: Conditions that online data do not have, because they need whole episodes in a row.
OFFLINE_CONDITIONS = ("return_to_go",)
ROWS_PER_CHUNK = 65_536


@dataclass(frozen=True)
class Resynthesis:
    """Trains and samples diffusion models on the transitions of an online run.

    Attributes:
        folder: below the run directory, where the stages lie.
        diffusion: the model; its sizes follow from the transitions.
        training: how it trains, every time.
        synthesis: how much is sampled, and how it is steered.
        config: what is special to training it again and again.
        conditions: relevance functions that it is conditioned on.
    """

    factory: TrainerFactory
    folder: str
    diffusion: ModuleConfig
    training: StageTraining
    synthesis: SynthesisConfig
    config: ResynthesisConfig
    conditions: Sequence[str] = ()

    def check(self, spec: TransitionSpec, agent: Agent) -> None:
        """Raise `ConfigError` now for what the first resynthesis would refuse."""
        self.training.check("diffusion")
        for name in self.conditions:
            if name not in COMPUTED or name in OFFLINE_CONDITIONS:
                computed = [known for known in COMPUTED if known not in OFFLINE_CONDITIONS]
                raise ConfigError(
                    f"diffusion.conditions holds {name!r}, which cannot be computed for the replay memory of an online "
                    f"run: give {', '.join(computed)}"
                )
        if self.synthesis.policy_guidance and self.synthesis.policy_checkpoint is None:
            raise ConfigError(
                "synthesis.policy_guidance is given without synthesis.policy_checkpoint: the agent that learns is not "
                "taken for it, give a checkpoint or leave it out"
            )
        if "td_error" in self.conditions:
            critics(agent)
        make_prompted(self.synthesis, self._build(spec, dict.fromkeys(self.conditions, 1) or None))

    def inputs(self) -> dict[str, Any]:
        """What determines the synthetic transitions of given real ones."""
        return {
            "model": self.diffusion.inputs(),
            "training": self.training.result_inputs(self.factory.precision),
            "num_transitions": self.synthesis.num_transitions,
            "chunk_size": self.synthesis.chunk_size,
            "precision": self.synthesis.precision or self.factory.precision,
            **self.synthesis.steering(),
            **self.synthesis.filtering(),
            "start": self.config.start,
            "conditions": list(self.conditions),
        }

    def __call__(self, real: Experience) -> Synthesis:
        """`online.synthetic.Resynthesise`."""
        stage = self._stage(real)
        with torch.random.fork_rng(devices=[]):
            figures = ensure(stage, lambda: self._build_store(stage, real))
        return Synthesis(self._store(real.num_steps), figures)

    def open(self, num_steps: int) -> TransitionStore:
        """The store that was made after ``num_steps`` agent steps."""
        return TransitionStore.open(self._store(num_steps))

    def forget(self, before: int) -> None:
        """Remove the stages of fewer than ``before`` agent steps."""
        for path in (self.factory.run_dir / self.folder).glob("*"):
            if path.name.isdecimal() and int(path.name) < before:
                shutil.rmtree(path, ignore_errors=True)

    def _name(self, num_steps: int) -> str:
        return f"{self.folder}/{num_steps:08d}"

    def _store(self, num_steps: int) -> Path:
        return self.factory.run_dir / self._name(num_steps) / "store"

    def _stage(self, real: Experience) -> Stage:
        digest = hashlib.blake2b(real.rows.contiguous().numpy().data.cast("B"), digest_size=8).hexdigest()
        inputs = {**self.inputs(), "rows": digest, "spec": real.spec.to_dict(), "seed": self.factory.seed}
        if self.config.start == "warm":
            inputs["previous"] = real.previous
        return Stage(self.factory.run_dir, self._name(real.num_steps), inputs)

    def _seed(self, stage: Stage, purpose: str) -> int:
        return derive_seed(self.factory.seed, "resynthesis", purpose, int(stage.directory.name))

    def _build_store(self, stage: Stage, real: Experience) -> dict[str, float]:
        seconds: dict[str, float] = {}
        memory = stage.directory / "real"
        with _timed(seconds, "seconds_training"):
            self._write(memory, real, stage)
            if self.conditions:
                seed = self._seed(stage, "conditions")
                compute_conditions([memory], self.conditions, seed=seed, agent=real.agent)
            model, losses = self._train(stage, memory, real)
        with _timed(seconds, "seconds_sampling"):
            store = sample_store(
                self.factory,
                model,
                stage.directory / "store",
                self.synthesis,
                seed=self._seed(stage, "samples"),
                fingerprint=stage.fingerprint,
                real=memory,
            )
        with _timed(seconds, "seconds_fidelity"):
            scores = self._judge(real, store)
        counts = store.metadata.extra.get("counts", {})
        dropped = {name: float(counts[name]) for name in COUNTERS if name in counts}
        shutil.rmtree(memory)
        if (last := stage.last_checkpoint) is not None:
            last.unlink()
        return {"real_transitions": float(len(real.rows)), **losses, **scores, **dropped, **seconds}

    def _write(self, path: Path, real: Experience, stage: Stage) -> None:
        """The replay memory as a store, for what reads stores; one that is there has the same rows."""
        with StoreWriter(
            path,
            real.spec,
            len(real.rows),
            seed=self.factory.seed,
            producer="replay memory",
            fingerprint=stage.fingerprint,
            chunk_size=ROWS_PER_CHUNK,
            existing="resume",
        ) as writer:
            for index in writer.pending_chunks:
                writer.write(index, real.rows[writer.chunk(index)])
            writer.commit()

    def _train(
        self, stage: Stage, memory: Path, real: Experience
    ) -> tuple[LatentDiffusion, dict[str, float]]:
        """The trained model and its last training loss."""
        record = stage.directory / "losses.json"
        if (
            stage.final_checkpoint.exists() and record.exists()
        ):  # an earlier attempt was ended after this point
            trained = load_checkpoint(stage.final_checkpoint)
            assert isinstance(trained, LatentDiffusion)
            return trained, read_json(record)
        torch.manual_seed(stage_seed(self._seed(stage, "model"), "diffusion"))
        sizes = read_conditions(memory, self.conditions)[1] if self.conditions else None
        model = self._build(real.spec, sizes)
        data = RowData(
            str(memory),
            batch_size=self.training.batch_size,
            updates_per_step=self.training.updates_per_step,
            seed=self._seed(stage, "batches"),
            conditions=self.conditions,
        )
        if self.config.start == "warm" and real.previous is not None:
            _start_from(model, self.factory.run_dir / self._name(real.previous) / "final.ckpt", data)
        kept = KeepMetric("train/loss")
        trainer = self.factory.trainer(stage, self.training, [kept])
        fit(stage, trainer, model, data)
        loss = kept.value(trainer)
        losses = {} if loss is None else {"loss": loss}
        write_json(record, losses)
        return model, losses

    def _build(self, spec: TransitionSpec, conditions: Mapping[str, int] | None) -> LatentDiffusion:
        model = self.diffusion.build(spec=spec.to_dict(), conditions=conditions)
        assert isinstance(model, LatentDiffusion)
        return model

    def _judge(self, real: Experience, store: TransitionStore) -> dict[str, float]:
        """Scores against the real transitions themselves: all of them were trained on."""
        count = self.config.fidelity_transitions
        if not count:
            return {}
        scores = fidelity(real.rows, store.rows, None, real.spec, max_rows=count).scores
        return {f"fidelity/{name}": value for name, value in scores.items()}


def _start_from(model: LatentDiffusion, checkpoint: Path, data: RowData) -> None:
    """Take the weights of ``checkpoint``, and the normaliser of the transitions as they are now."""
    earlier = load_checkpoint(checkpoint)
    model.load_state_dict(earlier.state_dict())
    data.setup("fit")
    assert data.rows is not None
    model.fit_normalizer(data.rows, data.condition_columns)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Any:
    start = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - start, 3)
