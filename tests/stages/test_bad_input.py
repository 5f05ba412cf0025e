"""What users get wrong: one sentence, status 1, and the run continues once it is mended."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightning_synther.__main__ import main
from lightning_synther.data import store_writer
from tests.stages.tiny import arguments, fit

LOCAL = "--data.dataset.source=local"


@pytest.fixture
def refused(tmp_path, capsys):
    """The sentence with which ``fit`` refuses the data under a root."""

    def call(root: Path, *more: str) -> str:
        argv = arguments(tmp_path / "tiny.yaml", root, tmp_path / "run", *more)
        capsys.readouterr()
        assert main(argv) == 1
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert said.count("\n") == 1
        return said.removeprefix("error: ")

    return call


@pytest.fixture
def copied(root, tmp_path) -> Path:
    """A copy of the dataset, to damage: its root."""
    shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns(".cache"))
    return tmp_path / "copy"


def folder(root: Path) -> Path:
    return root / "main" / "cartpole_swingup" / "random" / "64px"


def test_a_missing_folder(refused, tmp_path):
    said = refused(tmp_path / "nothing", LOCAL)
    assert "data.dataset.source is local, but" in said
    assert "nothing/main/cartpole_swingup/random/64px holds no dataset" in said


def test_an_empty_folder(refused, tmp_path):
    folder(tmp_path).mkdir(parents=True)
    assert "holds no dataset: give the folder that contains V-D4RL's main/" in refused(tmp_path, LOCAL)


@pytest.mark.usefixtures("nothing_ships")
def test_a_missing_folder_of_nothing_that_is_published_or_shipped(refused, tmp_path):
    said = refused(tmp_path, "--data.dataset.policy=medium")
    assert "no policy 'medium' for cartpole_swingup" in said


def test_an_unknown_task(refused, tmp_path):
    said = refused(tmp_path, "--data.dataset.task=cartpole_swingpu")
    assert "dm_control has no task 'cartpole_swingpu': did you mean cartpole_swingup" in said


def test_an_episode_with_pickled_objects(refused, copied):
    first = min(folder(copied).glob("*.npz"))
    with np.load(first) as npz:
        arrays = dict(npz)
    arrays["action"] = np.array([{"x": 1}] * len(arrays["reward"]), dtype=object)
    np.savez(first, **arrays)
    assert first.name in refused(copied, LOCAL)


def test_an_episode_of_unequal_lengths(refused, copied):
    first = min(folder(copied).glob("*.npz"))
    with np.load(first) as npz:
        arrays = dict(npz)
    arrays["reward"] = arrays["reward"][:-1]
    np.savez(first, **arrays)
    assert first.name in refused(copied, LOCAL)


def hdf5_root(tmp_path: Path) -> tuple[Path, Path]:
    directory = tmp_path / "main" / "cartpole_swingup" / "random" / "84px"
    directory.mkdir(parents=True)
    return tmp_path, directory / "0.hdf5"


def test_a_foreign_hdf5_file(refused, tmp_path):
    root, path = hdf5_root(tmp_path)
    with h5py.File(path, "w") as file:
        file["numbers"] = np.arange(3)
    assert str(path) in refused(root, LOCAL, "--data.dataset.image_size=84")


def test_a_truncated_hdf5_file(refused, tmp_path):
    root, path = hdf5_root(tmp_path)
    with h5py.File(path, "w") as file:
        file["observation"] = np.zeros((30, 3, 84, 84), np.uint8)
    path.write_bytes(path.read_bytes()[:5000])
    assert str(path) in refused(root, LOCAL, "--data.dataset.image_size=84")


def test_a_damaged_record_of_a_stage(refused, run, root, tmp_path):
    (run / "encoder" / "stage.json").write_text("{")
    said = refused(root)
    assert "encoder/stage.json is damaged" in said
    assert "delete its folder to rebuild that stage" in said


@pytest.mark.parametrize(
    ("flag", "sentence"),
    [
        ("--data.dataset.num_episodes=9", "num_episodes is 9, but"),
        ("--data.dataset.num_episodes=1", "of 1 episodes leaves none to train on"),
    ],
)
def test_settings_that_do_not_fit_the_data(refused, root, flag, sentence):
    assert sentence in refused(root, LOCAL, flag)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["--diffusion.latents.views=2"],
            "diffusion.latents.views is 2, but they differ only by their shifts",
        ),
        (["--model.stddev_schedule=steep"], "steep"),
        (["--encoder.model.stddev_schedule=steep"], "steep"),
        (["--diffusion.model.sigma_min=9", "--diffusion.model.sigma_max=1"], "sigma_min"),
        (["--data.mixing=ratio", "--data.ratio=1.5"], "ratio"),
        (["--evaluation.episodes=0"], "evaluation.episodes is 0: give at least 1"),
        (["--synthesis.chunk_size=0"], "synthesis.chunk_size is 0: give at least 1"),
        (["--encoder.training.updates_per_step=0"], "encoder.training.updates_per_step is 0"),
        (["--encoder.model=lightning_synther.agents.BC"], "train stage 1 with DrQV2"),
        (["--model.feature_dim=9"], "feature_dim"),
        (["--model.heads=pretrained", "--model.hidden_dim=24"], "heads is 'pretrained', but actor."),
    ],
)
def test_what_a_late_stage_would_refuse_is_refused_at_once(refused, root, tmp_path, flags, sentence):
    assert sentence in refused(root, LOCAL, *flags)
    assert not (tmp_path / "run").exists()


def test_a_full_disk_while_the_store_is_written(refused, root, run, tmp_path, monkeypatch, finished_run):
    pwrite = os.pwrite
    writes = 0

    def full(descriptor: int, data: bytes, offset: int) -> int:
        nonlocal writes
        writes += 1
        if writes > 2:  # rows and flag of the first chunk
            raise OSError(errno.ENOSPC, "No space left on device")
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(store_writer.os, "pwrite", full)
    size = "--synthesis.num_transitions=90"
    said = refused(root, size)
    assert "the disk is full while writing" in said
    assert "run the same command again, finished chunks are kept" in said
    monkeypatch.undo()
    assert (run / "synthesis" / "store.partial" / "finished").read_bytes() == b"\1\0\0"
    fit(tmp_path / "tiny.yaml", root, run, size, "--comparison.real_only=false")
    rows, before = (np.load(path / "synthesis" / "store" / "rows.npy") for path in (run, finished_run))
    np.testing.assert_array_equal(rows, before[:90])


def test_no_opengl_is_said_before_training(root, tmp_path):
    argv = arguments(tmp_path / "tiny.yaml", root, tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-m", "lightning_synther", *argv],
        env={**os.environ, "MUJOCO_GL": "nonsense"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: dm_control cannot render with MUJOCO_GL=nonsense")
    assert "apt-get install" in said
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "encoder" / "last.ckpt").exists()
