"""A rendered dataset, a finished tiny run, and no worker processes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from lightning_synther.agents.scoring import ScoredAgent
from tests.stages.tiny import collect_pixels, fit


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # networks as small as these only lose by more
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def _render_in_this_process() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScoredAgent, "eval_workers", 0)
        patch.setattr("lightning_synther.stages.real.encoder.check_rendering", lambda env: None)
        yield


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of V-D4RL's layout with six short episodes."""
    return collect_pixels(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def finished_run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory that nobody changes."""
    folder = tmp_path_factory.mktemp("finished")
    fit(folder / "tiny.yaml", root, folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))
