"""``fit`` on states: from a dataset to an agent, on a part of it, and across processes and nodes."""

from __future__ import annotations

import json
import logging
import shutil
import socket
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightning_synther.__main__ import main
from lightning_synther.data.conditions import read_condition
from lightning_synther.data.state_dataset import StateDataset
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.subset import Subset
from lightning_synther.stages.config.dataset import StateDatasetConfig
from lightning_synther.stages.real.source import RealTransitions
from lightning_synther.stages.real.states import StateSource
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from lightning_synther.stages.trainer.training import TrainerFactory
from tests.stages.record.test_two_processes import finish, start
from tests.stages.tiny import rebuilt, said_by_stages
from tests.stages.tiny_states import STAGES, arguments, fit


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A folder with a finished run and its collection, that nobody changes."""
    folder = tmp_path_factory.mktemp("states")
    fit(folder, "--comparison.synthetic_only=true", "--data.mixing=alternate")
    return folder


@pytest.fixture
def refit(finished, tmp_path, caplog):
    """Run ``fit`` on a copy of the finished run; what each stage said, by its name."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)

    def call(*more: str) -> dict[str, str]:
        flags = f"--data.dataset.root={finished / 'data'}", "--data.mixing=alternate", *more
        return said_by_stages(caplog, STAGES, lambda: fit(tmp_path, *flags))

    return call


def test_a_run_leaves_every_stage_and_a_summary(finished):
    run = finished / "run"
    summary = json.loads((run / "summary.json").read_text())
    for scores in (summary, summary["real_only"], summary["synthetic_only"]):
        assert scores["episodes"] == len(scores["returns"]) == 2
        assert scores["normalized_score"] == pytest.approx(scores["return_mean"] / 10)
    assert summary["data_source"] == "collected"
    assert summary["fidelity"]["compared_with"] == "heldout"
    assert {*STAGES, "agent_synthetic_only", "tensorboard"} <= {path.name for path in run.iterdir()}
    real = TransitionStore.open(run / "states" / "train")
    heldout = TransitionStore.open(run / "states" / "heldout")
    assert (len(real), len(heldout)) == (5 * 20, 20)
    assert TransitionStore.open(run / "synthesis" / "store").spec == real.spec
    agent = load_checkpoint(run / "agent" / "final.ckpt")
    assert agent.env["task"] == "cartpole_swingup"
    assert agent.env["time_limit"] == 0.4


def test_states_are_normalised_by_the_real_data(finished):
    """As the published code does: mean and deviation (ddof 0) + 1e-3 of the real data, also on synthetic ones."""
    real = TransitionStore.open(finished / "run" / "states" / "train")
    states = real.rows[:, real.spec.fields["observation"]].astype(np.float64)
    for name in ("agent", "agent_real_only", "agent_synthetic_only"):
        encoder = load_checkpoint(finished / "run" / name / "final.ckpt").encoder
        np.testing.assert_allclose(encoder.mean.numpy(), states.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(encoder.scale.numpy(), states.std(0) + 1e-3, rtol=1e-4)


def test_a_second_run_reuses_everything(refit):
    assert rebuilt(refit()) == []


def test_changes_rebuild_what_comes_after_and_say_why(refit):
    said = refit("--diffusion.model.width=24", "--comparison.real_only=false")
    assert rebuilt(said) == ["diffusion", "synthesis", "agent", "evaluation"]
    assert said["diffusion"] == "rebuilt, because these changed: model.width: 16 -> 24"
    said = refit("--data.num_real_episodes=2", "--comparison.real_only=false")
    assert rebuilt(said) == ["states", "diffusion", "synthesis", "agent", "evaluation"]
    assert "subset.num_episodes: unset -> 2" in said["states"]


def stores(folder: Path, data: Path, subset: Subset) -> RealTransitions:
    """What the stages before generation make of a part of the finished run's data."""
    config = StateDatasetConfig(path=str(data))
    return StateSource(TrainerFactory(folder, 0, {}), config, subset).provide()


def test_whatever_learns_sees_the_same_part_of_the_data(finished, tmp_path):
    fit(tmp_path, f"--data.dataset.root={finished / 'data'}", "--data.fraction=0.4")
    train = TransitionStore.open(tmp_path / "run" / "states" / "train")
    assert len(train) == 2 * 20
    model = load_checkpoint(tmp_path / "run" / "diffusion" / "final.ckpt")
    np.testing.assert_allclose(model.normalizer.mean.numpy(), train.rows.mean(0), rtol=1e-3, atol=1e-4)
    for name in ("agent", "agent_real_only"):
        mean = load_checkpoint(tmp_path / "run" / name / "final.ckpt").encoder.mean.numpy()
        states = train.rows[:, train.spec.fields["observation"]]
        np.testing.assert_allclose(mean, states.mean(0), rtol=1e-4, atol=1e-5)
    heldout, same = (folder / "run" / "states" / "heldout" / "rows.npy" for folder in (tmp_path, finished))
    assert heldout.read_bytes() == same.read_bytes()


def test_a_smaller_part_lies_within_a_larger_one(finished, tmp_path):
    (data,) = (finished / "data").glob("*/*/*")
    whole = TransitionStore.open(finished / "run" / "states" / "train").rows
    last = {row.tobytes() for row in whole}
    for name, subset in (("three", Subset(num_episodes=3)), ("two", Subset(0.4)), ("one", Subset(0.2))):
        real = stores(tmp_path / name, data, subset)
        rows = {row.tobytes() for row in TransitionStore.open(real.train).rows}
        assert rows < last
        last = rows
    real = stores(tmp_path / "single", data, Subset(0.15, "transitions"))
    assert len(TransitionStore.open(real.train)) == 15
    assert len(read_condition(real.train, "episode").unique()) > 1


def test_an_environment_that_is_given_later_reaches_the_stores(tmp_path):
    data = tmp_path / "data.npz"
    columns = {
        "observations": np.random.default_rng(0).random((40, 5)),
        "actions": np.zeros((40, 1)),
        "rewards": np.ones(40),
    }
    np.savez(data, **columns, terminals=np.zeros(40), timeouts=np.arange(1, 41) % 10 == 0)

    def scored(**options: Any) -> tuple[Any, Any]:
        config = StateDatasetConfig(path=str(data), options=options)
        real = StateSource(TrainerFactory(tmp_path / "run", 0, {}), config).provide()
        extra = TransitionStore.open(real.train).metadata.extra
        return extra.get("task"), extra.get("reference_scores")

    assert scored() == (None, None)
    assert scored(env="cartpole_swingup") == ("cartpole_swingup", None)
    assert scored(env="cartpole_swingup", reference_scores=[0.0, 5.0]) == ("cartpole_swingup", [0.0, 5.0])
    assert scored() == (None, None)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--data.fraction=0.05"], "fraction 0.05 of the 5 episodes of"),
        (["--data.num_real_episodes=6"], "num_real_episodes is 6, but"),
        (["--data.dataset.path=nothing"], "nothing is in no format of states that is known"),
    ],
)
def test_data_that_are_not_there_are_one_sentence(finished, tmp_path, capsys, flags, sentence):
    assert main(arguments(tmp_path, f"--data.dataset.root={finished / 'data'}", *flags)) == 1
    said = capsys.readouterr().err
    assert sentence in said
    assert said.splitlines()[-1].startswith("error: ")


@pytest.mark.usefixtures("nothing_ships")
def test_a_policy_that_does_not_ship_is_one_sentence(finished, tmp_path, capsys):
    root = f"--data.dataset.root={finished / 'data'}"
    assert main(arguments(tmp_path, root, "--data.dataset.policy=medium")) == 1
    (said,) = capsys.readouterr().err.splitlines()[-1:]
    assert said.startswith("error: no policy 'medium' for cartpole_swingup: choose one of random")


def test_collections_of_two_policy_files_are_told_apart_by_their_content(tmp_path):
    def config(path: Path, content: bytes) -> tuple[Path, dict[str, Any]]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        found = StateDatasetConfig(policy=str(path), root=str(tmp_path))
        return found.collected(), found.files()

    first = config(tmp_path / "a" / "mine.safetensors", b"one")
    assert config(tmp_path / "a" / "mine.safetensors", b"one") == first
    other = config(tmp_path / "b" / "mine.safetensors", b"two")
    again = config(tmp_path / "a" / "mine.safetensors", b"three")
    assert len({first[0], other[0], again[0]}) == 3
    assert again[1] != first[1]
    shipped = StateDatasetConfig(policy="medium", root=str(tmp_path))
    assert shipped.collected().name == "num_episodes_200-collect_seed_0"


def d4rl_file(path: Path, ends: bool) -> Path:
    """60 transitions of two numbers in six episodes, as D4RL writes them; with ``ends``, each ends for good."""
    rng = np.random.default_rng(0)
    last = np.arange(60) % 10 == 9
    with h5py.File(path, "w") as file:
        file["observations"] = rng.normal(size=(60, 2)).astype(np.float32)
        file["actions"] = rng.uniform(-1, 1, size=(60, 1)).astype(np.float32)
        file["rewards"] = rng.normal(size=60).astype(np.float32)
        file["next_observations"] = rng.normal(size=(60, 2)).astype(np.float32)
        file["terminals"], file["timeouts"] = (last, ~last & last) if ends else (last & ~last, last)
    return path


def test_a_file_of_ones_own_with_terminals(tmp_path, caplog):
    path = d4rl_file(tmp_path / "mine.hdf5", ends=True)
    with caplog.at_level(logging.INFO, logger="lightning_synther"):
        summary = fit(tmp_path, f"--data.dataset.path={path}", "--comparison.real_only=false")
    assert summary["data_source"] == "local"
    assert "return_mean" not in summary
    assert "agent: not scored, as its data name no environment: give model.env" in caplog.messages
    store = TransitionStore.open(tmp_path / "run" / "synthesis" / "store")
    assert store.spec.terminal
    model = load_checkpoint(tmp_path / "run" / "diffusion" / "final.ckpt")
    assert (model.normalizer.mean[-1], model.normalizer.std[-1]) == (0, 1), "terminals are not normalised"
    made = store.spec.unflatten(store.mapped)
    np.testing.assert_array_equal(made.discount[:, 0] == 0, store.rows[:, -1] > 0.5)


def test_terminals_of_the_whole_data_decide_about_their_column(tmp_path):
    data = StateDataset.from_arrays(
        observations=np.random.default_rng(0).normal(size=(60, 2)),
        actions=np.zeros((60, 1)),
        rewards=np.zeros(60),
        terminals=np.arange(60) == 59,  # in the last episode, which is held out
        timeouts=np.arange(60) % 10 == 9,
    )
    data.write(tmp_path / "data")
    fit(tmp_path, f"--data.dataset.path={tmp_path / 'data'}", "--comparison.real_only=false")
    stores = [TransitionStore.open(tmp_path / "run" / "states" / name) for name in ("train", "heldout")]
    assert [store.spec.terminal for store in stores] == [True, True]
    assert stores[0].rows[:, -1].sum() == 0


TWO = (
    "--trainer.devices=2",
    "--trainer.strategy=ddp_find_unused_parameters_true",
    "--comparison.real_only=false",
)


@pytest.fixture(scope="module")
def two(finished, tmp_path_factory) -> tuple[Path, str]:
    """A run on two processes, and what it said."""
    folder = tmp_path_factory.mktemp("two")
    argv = arguments(folder, f"--data.dataset.root={finished / 'data'}", *TWO)
    status, said = finish(start(["lightning_synther"], argv))
    assert status == 0, said
    return folder, said


def test_two_processes_do_and_say_everything_once(two):
    _, said = two
    for stage in STAGES[:6]:
        assert said.count(f"{stage}: starts\n") == said.count(f"{stage}: finished in") == 1
    assert said.count("agent: return ") == 1
    assert "Warning" not in said


@pytest.mark.slow
def test_two_nodes_run_the_offline_recipe(two, finished, tmp_path):
    """Two torchruns that find each other on loopback, as two machines with a shared disk would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv = arguments(tmp_path, f"--data.dataset.root={finished / 'data'}", *TWO[1:], "--trainer.num_nodes=2")
    meeting = ["--nnodes=2", "--nproc_per_node=1", "--master_addr=127.0.0.1", f"--master_port={port}"]
    nodes = [
        start(
            ["torch.distributed.run", *meeting, f"--node_rank={rank}", "-m", "lightning_synther"],
            [*argv, "--trainer.devices=1"],
        )
        for rank in range(2)
    ]
    ends = [finish(node) for node in nodes]
    said = "".join(words for _, words in ends)
    assert [status for status, _ in ends] == [0, 0], said
    for stage in STAGES[:6]:
        assert said.count(f"{stage}: finished in") == 1
    ours, theirs = (
        (folder / "run" / "synthesis" / "store" / "rows.npy").read_bytes() for folder in (tmp_path, two[0])
    )
    assert ours == theirs, "two nodes of one process are as one of two"
