"""``python -m lightning_synther fidelity``."""

import json
import re

import numpy as np
import pytest
import torch

from lightning_synther.__main__ import main
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.data.synther_npz import export_npz
from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.synthesis.simulation import simulator_errors
from lightning_synther.transition import TransitionSpec
from tests.synthesis.test_fidelity import SPEC, transitions


def write(path, rows, spec=SPEC, **extra):
    with StoreWriter(
        path, spec, len(rows), seed=0, producer="test", fingerprint="", chunk_size=len(rows), extra=extra
    ) as writer:
        writer.write(0, rows)
        return writer.commit()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    for seed, (name, num) in enumerate({"real": 600, "made": 800, "heldout": 300}.items()):
        export_npz(write(folder / name, transitions(num, seed)), folder / f"{name}.npz")
    return folder


def rows_of(table):
    """Score, floor and rows in the printed table, by the first words of their lines."""
    lines = [re.split(" {2,}", line.strip()) for line in table.splitlines()[1:]]
    return {words[0]: tuple(map(float, words[1:])) for words in lines if len(words) == 4}


def test_the_table_and_the_plots(stores, tmp_path, capsys):
    paths = [f"--{name}={stores / store}" for name, store in (("real", "real"), ("synthetic", "made"))]
    assert main(["fidelity", *paths, f"--heldout={stores / 'heldout'}", f"--plot={tmp_path / 'plots'}"]) == 0
    said = capsys.readouterr().out
    made = json.loads((tmp_path / "plots" / "fidelity.json").read_text())
    shown = rows_of(said)["marginals: Kolmogorov-Smirnov, mean over columns"]
    expected = made["scores"]["ks_mean"], made["scores"]["ks_mean_floor"], 600
    assert shown == pytest.approx(expected, abs=1e-4)
    assert "600 synthetic, 600 training and 300 held-out records" in said
    for name in ("marginals", "pca", "reward"):
        assert (tmp_path / "plots" / f"{name}.png").stat().st_size > 10_000
    assert (tmp_path / "plots" / "novelty.png").stat().st_size > 5_000


def test_synthers_files_are_compared_alike(stores, capsys):
    for suffix in ("", ".npz"):
        assert main(["fidelity", f"--real={stores / 'real'}", f"--synthetic={stores / 'made'}{suffix}"]) == 0
    store, _, npz = (
        capsys.readouterr()
        .out.partition("synthetic against training records")[2]
        .partition("synthetic against training records")
    )
    assert store.strip() == npz.strip()
    assert "no floors, novelty or memorisation: give --heldout" in store


def test_stores_of_other_sizes(stores, tmp_path, capsys):
    write(tmp_path / "wide", np.zeros((10, 8), np.float32), TransitionSpec(3, 1, 0.99))
    assert main(["fidelity", f"--real={stores / 'real'}", f"--synthetic={tmp_path / 'wide'}"]) == 1
    assert "wide has 8 numbers a row" in capsys.readouterr().err


def pendulum_rows(num):
    """Real transitions of pendulum_swingup at action repeat 2, and their spec."""
    env = ControlEnv(EnvConfig("pendulum_swingup", "states", action_repeat=2))
    generator = np.random.default_rng(0)
    state, rows = env.reset(0), []
    for _ in range(num):
        action = generator.uniform(-1, 1, 1).astype(np.float32)
        result = env.step(action)
        rows.append(np.concatenate([state, action, [result.reward], result.observation]))
        state = result.observation
    return np.array(rows, np.float32), TransitionSpec(3, 1, 0.99)


def test_the_simulator_finds_next_states_of_other_transitions(tmp_path, capsys):
    rows, spec = pendulum_rows(60)
    write(tmp_path / "real", rows, spec)
    rows[:, spec.fields["next_observation"]] = rows[::-1, spec.fields["next_observation"]]
    write(tmp_path / "made", rows, spec)
    paths = [f"--real={tmp_path / 'real'}", f"--synthetic={tmp_path / 'made'}"]
    assert main(["fidelity", *paths, "--task=pendulum_swingup", f"--plot={tmp_path / 'plots'}"]) == 0
    scores = json.loads((tmp_path / "plots" / "fidelity.json").read_text())["scores"]
    assert scores["simulator_dynamics_error_floor"] < 1e-4
    assert scores["simulator_dynamics_error"] > 0.5
    assert scores["simulator_state_error"] < 1e-4
    assert scores["simulator_diverged"] == 0
    assert rows_of(capsys.readouterr().out)["simulator: error of the next state"][2] == 60


def test_a_known_error_in_units_of_the_data():
    rows, spec = (
        torch.from_numpy(part) if isinstance(part, np.ndarray) else part for part in pendulum_rows(30)
    )
    rows[:, spec.fields["next_observation"]] += 0.5
    scores = simulator_errors(rows, spec, EnvConfig("pendulum_swingup", "states"), torch.full((8,), 0.25))
    assert scores["simulator_dynamics_error"] == pytest.approx(2.0, rel=1e-3)
    assert scores["simulator_reward_error"] < 1e-4


def test_what_cannot_be_simulated(stores, tmp_path, capsys):
    paths = [f"--real={stores / 'real'}", f"--synthetic={stores / 'made'}"]
    assert main(["fidelity", *paths, "--task=cheetah_run"]) == 1
    assert "latents cannot be simulated" in capsys.readouterr().err
    rows, spec = pendulum_rows(20)
    write(tmp_path / "real", rows, spec, n_step=3)
    paths = [f"--{kind}={tmp_path / 'real'}" for kind in ("real", "synthetic")]
    assert main(["fidelity", *paths, "--task=pendulum_swingup"]) == 1
    assert "span 3 steps" in capsys.readouterr().err
    assert TransitionStore.open(tmp_path / "real").metadata.extra == {"n_step": 3}


@pytest.mark.parametrize("max_rows", [-3, 1])
def test_too_few_rows_to_read(stores, max_rows, capsys):
    paths = [f"--real={stores / 'real'}", f"--synthetic={stores / 'made'}"]
    assert main(["fidelity", *paths, f"--max_rows={max_rows}"]) == 1
    assert capsys.readouterr().err == f"error: max_rows is {max_rows}: give at least 2\n"


def test_a_plot_folder_below_a_file(stores, tmp_path, capsys):
    (tmp_path / "file").touch()
    paths = [
        f"--real={stores / 'real'}",
        f"--synthetic={stores / 'made'}",
        f"--plot={tmp_path / 'file' / 'f'}",
    ]
    assert main(["fidelity", *paths]) == 1
    assert "file/f (a part of it is a file, not a folder)" in capsys.readouterr().err
