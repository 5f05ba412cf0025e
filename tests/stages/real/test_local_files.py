"""A dataset that is there already is used as it is only where it is whole, and the one that is meant."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from lightning_synther.data import transfer
from lightning_synther.data.transfer import SourceUnavailableError
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.online.collect import collect
from lightning_synther.stages.config.dataset import DatasetConfig
from lightning_synther.stages.real import pixel_dataset
from lightning_synther.stages.real.local_files import why_unusable
from lightning_synther.stages.real.pixel_dataset import provide_dataset

DATA = "0_cheetah_run_medium.hdf5"


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> DatasetConfig:
    """Settings of a dataset that was collected with them."""
    root = str(tmp_path_factory.mktemp("collected"))
    settings = {"image_size": 64, "action_repeat": 1, "time_limit": 0.2}
    collect("cartpole_swingup", root=root, episodes=2, seed=3, num_workers=0, progress=False, **settings)
    return DatasetConfig(
        "cartpole_swingup", "random", root=root, source="auto", num_episodes=2, collect_seed=3, **settings
    )


@pytest.mark.parametrize("source", ["auto", "local"])
def test_a_collection_of_the_same_settings_is_used(collected, source):
    directory, found = provide_dataset(replace(collected, source=source), num_workers=0)
    assert found == "collected"
    assert why_unusable(directory, collected) == ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"collect_seed": 7},
            "with seed=3, not 7: give another data.dataset.root, or 3 as data.dataset.collect_seed",
        ),
        ({"action_repeat": 2}, "with action_repeat=1, not 2"),
        ({"time_limit": 0.4}, "with time_limit=0.2, not 0.4"),
        ({"time_limit": None}, "with time_limit=0.2, not None"),
    ],
)
def test_a_collection_of_other_settings_is_refused(collected, change, said):
    other = replace(collected, **change)
    with pytest.raises(ConfigError, match=f"64px was collected {said}"):
        provide_dataset(other, num_workers=0)
    assert said in why_unusable(provide_dataset(collected, num_workers=0)[0], other)
    local = replace(other, source="local")
    if "collect_seed" in change:
        provide_dataset(local, num_workers=0)
    else:
        with pytest.raises(ConfigError, match=said):
            provide_dataset(local, num_workers=0)


@pytest.mark.parametrize(("made", "wanted"), [(10.0, None), (None, 10), (None, 10.0)])
def test_the_tasks_own_time_limit_may_be_named(tmp_path, made, wanted):
    config = DatasetConfig(
        "cartpole_swingup", "random", 64, str(tmp_path), "auto", num_episodes=1, time_limit=wanted
    )
    record(tmp_path / "main/cartpole_swingup/random/64px", time_limit=made, action_repeat=2)
    assert provide_dataset(config, num_workers=0)[1] == "collected"


def test_what_a_record_does_not_say_is_not_compared(tmp_path):
    record(tmp_path / "main/cartpole_swingup/random/64px", action_repeat=2)
    config = DatasetConfig("cartpole_swingup", "random", 64, str(tmp_path), "local", time_limit=0.3)
    assert provide_dataset(config, num_workers=0)[1] == "collected"
    with pytest.raises(ConfigError, match="with action_repeat=2, not 4"):
        provide_dataset(replace(config, action_repeat=4), num_workers=0)


def record(directory: Path, **request: object) -> None:
    """A folder that says it holds one episode, collected with ``request``."""
    directory.mkdir(parents=True)
    (directory / "000000-1.npz").write_bytes(b"")
    content = {"source": "collected", "episodes": 1, "files": {}, "request": request}
    (directory / "provenance.json").write_text(json.dumps(content))


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """The folder of an official dataset, one file of which is whole and one is not."""
    directory = tmp_path / "main/cheetah_run/medium/84px"
    directory.mkdir(parents=True)
    (directory / DATA).write_bytes(b"whole")
    (directory / f"1{DATA[1:]}.partial").write_bytes(b"part")
    return directory


def test_an_interrupted_download_is_no_local_dataset(interrupted, tmp_path):
    config = DatasetConfig(root=str(tmp_path), source="local")
    said = r"1_cheetah_run_medium.hdf5.partial was not downloaded to its end, so .*84px holds a part of"
    with pytest.raises(DataError, match=said):
        provide_dataset(config)
    assert "was not downloaded to its end" in why_unusable(interrupted, config)
    (interrupted / f"1{DATA[1:]}.partial").unlink()
    assert provide_dataset(config) == (interrupted, "local")
    assert why_unusable(interrupted, config) == ""


def test_an_interrupted_download_is_continued(interrupted, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(pixel_dataset, "download", lambda *args, **more: asked.append(args) or interrupted)
    assert provide_dataset(DatasetConfig(root=str(tmp_path))) == (interrupted, "downloaded")
    assert asked == [("cheetah_run", "medium")]


def test_where_it_cannot_be_continued_nothing_is_collected_beside_it(interrupted, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "obstacle", lambda url: "no network")
    with pytest.raises(SourceUnavailableError, match="no network"):
        provide_dataset(DatasetConfig(root=str(tmp_path)))
    assert not (interrupted / "provenance.json").exists()


def test_data_of_ones_own_may_lie_beside_anything(tmp_path):
    directory = tmp_path / "main/cheetah_run/mine/84px"
    directory.mkdir(parents=True)
    (directory / "a.hdf5").write_bytes(b"")
    (directory / "b.hdf5.partial").write_bytes(b"")
    assert provide_dataset(DatasetConfig(policy="mine", root=str(tmp_path))) == (directory, "local")
