import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lightning_synther.data.datamodules import RowData
from lightning_synther.data.store import TransitionStore, partial_path
from lightning_synther.diffusion.conditioning import Prompt
from lightning_synther.diffusion.guidance import Guidance
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.seeding import derive_seed
from tests.synthesis.gaussian import SPEC, Gaussian, predict


def test_every_chunk_comes_from_its_own_seed(tmp_path):
    store = predict(Gaussian(), tmp_path / "store")
    assert len(store) == 25
    for index, rows in enumerate(np.split(store.rows, [10, 20])):
        generator = torch.Generator().manual_seed(derive_seed(5, "synthesis", index))
        np.testing.assert_array_equal(rows, torch.randn(len(rows), SPEC.dim, generator=generator))
    assert store.metadata.producer == "Gaussian"
    assert store.metadata.seed == 5


def test_an_interrupted_store_is_continued_to_the_same_bytes(tmp_path):
    whole = predict(Gaussian(), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="the power went out"):
        predict(Gaussian(stop_at=1), tmp_path / "store")
    model = Gaussian()
    store = predict(model, tmp_path / "store")
    assert model.chunks == [1, 2]
    assert (store.path / "rows.npy").read_bytes() == (whole.path / "rows.npy").read_bytes()
    assert store.metadata == whole.metadata


def test_a_store_that_only_lacks_its_name_is_committed(tmp_path):
    store = predict(Gaussian(), tmp_path / "store")
    store.path.rename(partial_path(store.path))
    (partial_path(store.path) / "finished").write_bytes(b"\x01" * 3)
    model = Gaussian()
    assert len(predict(model, tmp_path / "store")) == 25
    assert model.chunks == []


def test_a_store_of_another_precision_is_neither_kept_nor_continued(tmp_path):
    for name, stop_at in (("finished", None), ("partial", 1)):
        path = tmp_path / name
        try:
            predict(Gaussian(stop_at=stop_at), path, precision="bf16-mixed")
        except RuntimeError:
            assert stop_at is not None
        with pytest.raises(ConfigError, match=r"fingerprint"):
            predict(Gaussian(), path, existing="resume")
        assert predict(Gaussian(), path, existing="resume", precision="bf16-mixed").path == path
    predict(Gaussian(), tmp_path / "default")
    assert len(predict(Gaussian(), tmp_path / "default", existing="resume", precision="32-true")) == 25


def test_a_finished_store_can_be_kept_or_refused(tmp_path):
    predict(Gaussian(), tmp_path / "store")
    with pytest.raises(ConfigError, match="store exists"):
        predict(Gaussian(), tmp_path / "store")
    model = Gaussian()
    predict(model, tmp_path / "store", existing="resume")
    assert model.chunks == []


def test_other_weights_do_not_continue_a_store(tmp_path):
    with pytest.raises(RuntimeError, match="the power went out"):
        predict(Gaussian(stop_at=1), tmp_path / "store")
    model = Gaussian()
    model.scale.data += 1e-6
    with pytest.raises(ConfigError, match=r"store.partial was begun with fingerprint="):
        predict(model, tmp_path / "store")


def test_rows_that_are_not_finite_stop_the_run(tmp_path):
    with pytest.raises(
        DataError, match=r"2 of 10 rows of chunk 1 of .* are not finite: Gaussian has diverged"
    ):
        predict(Gaussian(bad_chunk=1), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def run_python(code, *args, **kwargs):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom tests.synthesis.gaussian import *\n"
        + textwrap.dedent(code)
    )
    return subprocess.Popen([sys.executable, "-c", code, *map(str, args)], stdout=subprocess.PIPE, **kwargs)


def test_a_killed_process_is_continued_to_the_same_bytes(tmp_path):
    code = """
    class Slow(Gaussian):
        def predict_step(self, chunk, batch_idx=0):
            if chunk.index == 2:
                print("two chunks are written", flush=True)
                time.sleep(60)
            return super().predict_step(chunk, batch_idx)
    Slow.__name__ = "Gaussian"
    predict(Slow(), Path(sys.argv[1]))
    """
    with run_python(code, tmp_path / "store") as process:
        assert process.stdout.readline() == b"two chunks are written\n"
        process.send_signal(signal.SIGKILL)
    model = Gaussian()
    store = predict(model, tmp_path / "store")
    assert model.chunks == [2]
    np.testing.assert_array_equal(store.rows, predict(Gaussian(), tmp_path / "whole").rows)


TWO_RANKS = """
data = SynthesisData(sys.argv[1], 45, chunk_size=10, seed=5)
model = Gaussian()
trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False,
                     enable_progress_bar=False, callbacks=[StoreWriterCallback(data)])
trainer.predict(model, datamodule=data, return_predictions=False)
"""


def test_two_ranks_write_one_store_of_the_same_bytes(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        "import sys\nfrom tests.synthesis.gaussian import *\nif __name__ == '__main__':\n"
        + textwrap.indent(TWO_RANKS, "    ")
    )
    subprocess.run([sys.executable, str(script), str(tmp_path / "store")], check=True, env=python_path())
    expected = predict(Gaussian(), tmp_path / "alone", 45)
    store = TransitionStore.open(tmp_path / "store")
    np.testing.assert_array_equal(store.rows, expected.rows)
    assert store.metadata == expected.metadata


def python_path():
    return {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}


PEAK = """
def peak():
    status = open("/proc/self/status").read()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024

spec = TransitionSpec(observation_dim=100, action_dim=6, discount=0.99)
def sample(path, num):
    data = SynthesisData(path, num, spec=spec, chunk_size=10_000)
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False,
                         callbacks=[StoreWriterCallback(data)])
    trainer.predict(Gaussian(spec), datamodule=data)
sample(sys.argv[1] + "/small", 20_000)
before = peak()
sample(sys.argv[1] + "/large", int(sys.argv[2]))
print(peak() - before)
"""


def peak_growth(folder, num_transitions):
    """MB that sampling many chunks needs on top of sampling two."""
    with run_python(PEAK, folder, num_transitions) as process:
        output = process.stdout.read()
    assert process.returncode == 0
    return float(output)


def test_memory_does_not_grow_with_the_store(tmp_path):
    assert peak_growth(tmp_path, 150_000) < 50  # the rows are 124 MB


@pytest.mark.slow
def test_five_million_transitions_need_no_memory(tmp_path):
    start = time.time()
    assert peak_growth(tmp_path, 5_000_000) < 200  # the rows are 4.1 GB
    assert len(TransitionStore.open(tmp_path / "large")) == 5_000_000
    assert time.time() - start < 600


def test_the_diffusion_model_is_trained_on_a_store_and_fills_another(tmp_path):
    predict(Gaussian(), tmp_path / "real", 200)
    data = RowData(str(tmp_path / "real"), batch_size=16, updates_per_step=2)
    model = LatentDiffusion(SPEC.to_dict(), width=16, num_layers=1, num_sampling_steps=2)
    trainer = pl.Trainer(
        max_steps=4,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(model, datamodule=data)
    assert trainer.global_step == 4
    store = predict(model, tmp_path / "synthetic")
    assert store.metadata.producer == "LatentDiffusion"
    rows = model.sample(10, seed=derive_seed(5, "synthesis", 1))
    np.testing.assert_array_equal(store.rows[10:20], rows)


class Interrupted(LatentDiffusion):
    """Stops before chunk 2."""

    def predict_step(self, request, batch_idx):
        if request.index == 2:
            raise RuntimeError("the power went out")
        return super().predict_step(request, batch_idx)


Interrupted.__name__ = "LatentDiffusion"


def conditional(cls=LatentDiffusion, **guidance):
    torch.manual_seed(0)
    settings = {"width": 16, "num_layers": 1, "sampler": "dpmpp_2m_sde", "num_sampling_steps": 3}
    model = cls(SPEC.to_dict(), {"relevance": 1}, sigma_min="auto", sigma_max="auto", **settings)
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(200, SPEC.dim, generator=generator)
    model.fit_normalizer(rows, rows[:, :1])
    model.guidance = Guidance(**{"weight": 2.0, "prompt": Prompt("top", 0.25), **guidance})
    return model


def test_guided_chunks_are_the_same_whoever_samples_them(tmp_path):
    whole = predict(conditional(), tmp_path / "whole", 45)
    with pytest.raises(RuntimeError, match="the power went out"):
        predict(conditional(Interrupted), tmp_path / "store", 45)
    store = predict(conditional(), tmp_path / "store", 45)
    np.testing.assert_array_equal(store.rows, whole.rows)
    assert store.metadata == whole.metadata
    alone = conditional().sample(10, seed=derive_seed(5, "synthesis", 3))  # as a rank that got chunk 3 only
    np.testing.assert_array_equal(store.rows[30:40], alone)


@pytest.mark.parametrize(
    "other", [{"weight": 1.0}, {"prompt": Prompt("top", 0.5)}, {"prompt": Prompt("values", values=(0.0,))}]
)
def test_other_guidance_does_not_continue_a_store(tmp_path, other):
    with pytest.raises(RuntimeError, match="the power went out"):
        predict(conditional(Interrupted), tmp_path / "store", 45)
    with pytest.raises(ConfigError, match=r"store.partial was begun with fingerprint="):
        predict(conditional(**other), tmp_path / "store", 45)


def test_another_sampler_does_not_continue_a_store(tmp_path):
    with pytest.raises(RuntimeError, match="the power went out"):
        predict(conditional(Interrupted), tmp_path / "store", 45)
    model = conditional()
    model.sampler = replace(model.sampler, num_steps=4)
    with pytest.raises(ConfigError, match=r"store.partial was begun with fingerprint="):
        predict(model, tmp_path / "store", 45)
