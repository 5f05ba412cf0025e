"""A stand-in for a diffusion model, cheap to import in the processes that tests start."""

import lightning.pytorch as pl
import torch

from lightning_synther.data.store import TransitionStore
from lightning_synther.synthesis.sample import Chunk, StoreWriterCallback, SynthesisData
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.97)


class Gaussian(pl.LightningModule):
    """The rows of a chunk are normal numbers drawn from its seed."""

    def __init__(self, spec=SPEC, bad_chunk=None, stop_at=None):
        super().__init__()
        self.spec, self.bad_chunk, self.stop_at = spec, bad_chunk, stop_at
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.chunks = []

    def predict_step(self, chunk, batch_idx=0):
        assert isinstance(chunk, Chunk)
        if chunk.index == self.stop_at:
            raise RuntimeError("the power went out")
        self.chunks.append(chunk.index)
        generator = torch.Generator().manual_seed(chunk.seed)
        rows = torch.randn(chunk.num_rows, self.spec.dim, generator=generator) * self.scale
        if chunk.index == self.bad_chunk:
            rows[:2] = torch.nan
        return rows


def predict(model, path, num_transitions=25, precision=None, **kwargs):
    data = SynthesisData(path, num_transitions, **{"chunk_size": 10, "seed": 5, **kwargs})
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_progress_bar=False,
        callbacks=[StoreWriterCallback(data)],
    )
    trainer.predict(model, datamodule=data)
    assert trainer.predict_loop.predictions == [[]] or trainer.predict_loop.predictions == []
    return TransitionStore.open(path, expected=SPEC)
