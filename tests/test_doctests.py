"""The examples in docstrings run, each module's in a folder of its own."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import lightning_synther

MODULES = [
    info.name
    for info in pkgutil.walk_packages(lightning_synther.__path__, "lightning_synther.")
    if not info.ispkg and not info.name.endswith("__main__")
]
#: Public names whose docstrings show them at work.
SHOWN = (
    "CustomEncoder",
    "LatentDiffusion",
    "PixelReplay",
    "TransitionSpec",
    "TransitionStore",
    "Video",
    "add_noise",
    "collect",
    "collect_states",
    "decode",
    "denoising_steps",
    "encode_dataset",
    "fidelity",
    "frames_figure",
    "load_vd4rl",
    "run_episodes",
    "synthesize",
    "train",
    "write_rows",
)


def examples(module: object) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(module, extraglobs={})
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_hold(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    said: list[str] = []
    for test in examples(importlib.import_module(name)):
        runner.run(test, out=said.append)
    assert not runner.failures, "".join(said)


@pytest.mark.parametrize("name", SHOWN)
def test_a_public_name_shows_how_it_is_used(name):
    assert ">>>" in (getattr(lightning_synther, name).__doc__ or "")
