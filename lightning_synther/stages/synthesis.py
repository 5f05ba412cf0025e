"""Stage 3 as a call: sample a store from a diffusion model, sharded over the ranks of a Trainer."""

from __future__ import annotations

from pathlib import Path

from lightning_synther.data.store import TransitionStore
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.stages.config import SynthesisConfig
from lightning_synther.stages.training import TrainerFactory, interruptible
from lightning_synther.synthesis.sample import StoreWriterCallback, SynthesisData


def sample_store(
    factory: TrainerFactory,
    model: LatentDiffusion,
    path: Path,
    config: SynthesisConfig,
    *,
    seed: int,
    fingerprint: str,
) -> TransitionStore:
    """Sample ``config.num_transitions`` into ``path``; goes on with a store that was interrupted."""
    if not path.exists():  # an interruption may lie between the store and the record of its stage
        data = SynthesisData(
            path,
            spec=model.spec,
            num_transitions=config.num_transitions,
            chunk_size=config.chunk_size,
            seed=seed,
            fingerprint=fingerprint,
        )
        trainer = factory.plain_trainer("synthesis", config.precision, callbacks=[StoreWriterCallback(data)])
        with interruptible(trainer):
            trainer.predict(model, datamodule=data, return_predictions=False)
    return TransitionStore.open(path, expected=model.spec)
