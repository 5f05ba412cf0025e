"""Recordings of a replay memory: rendered later, they give the bytes of the live episodes."""

import json

import lightning.pytorch as pl
import numpy as np
import pytest
import torch

from lightning_synther.data.vd4rl import load_vd4rl
from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.online.collect import collect
from lightning_synther.online.environments import Environments
from lightning_synther.online.interaction import OnlineData
from lightning_synther.online.recording import Recording
from lightning_synther.seeding import derive_seed
from tests.agents.tiny import trainer as quiet_trainer

STEPS = 5  # of an episode
QUICK = {"time_limit": 0.1, "num_workers": 0, "progress": False, "policy": "medium_replay"}


def record(path, num_steps, task="cartpole_swingup", num_envs=1, seed=0):
    config = EnvConfig(task, observation="states", time_limit=0.1)
    envs = Environments(config, num_envs, capacity=100, gamma=0.9, seed=seed)
    envs.record(path)
    envs.collect(num_steps, explore=None)
    return envs


@pytest.mark.parametrize(
    ("task", "num_envs"),
    # reacher places its target in the model when it is reset
    [("cartpole_swingup", 2), ("reacher_easy", 1), ("cheetah_run", 1)],
)
def test_rendered_frames_equal_live_ones_bit_by_bit(tmp_path, task, num_envs):
    envs = record(tmp_path / "rec", 4 * STEPS, task, num_envs)
    envs.recorder.finish()
    recording = Recording(tmp_path / "rec")
    directory = collect(task, root=str(tmp_path), replay_path=str(tmp_path / "rec"), **QUICK)
    data = load_vd4rl(directory, cache=False)
    assert data.num_episodes == recording.num_episodes >= 2
    for episode, start in enumerate(data.starts):
        live = ControlEnv(EnvConfig(task, frame_stack=1, time_limit=0.1))
        frame = live.reset(derive_seed(0, "episode", 0, episode))
        np.testing.assert_array_equal(data.frames[start], frame)
        for row in range(start + 1, start + data.lengths[episode]):
            step = live.step(data.action[row])
            np.testing.assert_array_equal(data.frames[row], step.observation)
            assert data.reward[row] == np.float32(step.reward)
            assert data.discount[row] == np.float32(step.discount)
        assert step.last
    memory = envs.replay.unflatten(envs.replay.rows()).action
    taken = np.concatenate(
        [data.action[s + 1 : s + n] for s, n in zip(data.starts, data.lengths, strict=True)]
    )
    assert {row.tobytes() for row in taken} <= {row.numpy().tobytes() for row in memory}
    live.close()


def test_a_cut_off_episode_is_left_out_and_rows_say_where_they_belong(tmp_path):
    record(tmp_path / "rec", 2 * STEPS + 3).recorder.finish()
    recording = Recording(tmp_path / "rec")
    assert recording.lengths.tolist() == [STEPS + 1] * 2
    rows = recording.episode(1)
    assert rows["step"].tolist() == list(range(STEPS + 1))
    assert rows["last"].tolist() == [False] * STEPS + [True]
    assert rows["seed"][0] == derive_seed(0, "episode", 0, 1)
    assert not rows["action"][0].any()
    assert rows["reward"][0] == 0


def test_collecting_a_part_of_a_recording(tmp_path):
    record(tmp_path / "rec", 4 * STEPS).recorder.finish()
    options = QUICK | {"task": "cartpole_swingup", "replay_path": str(tmp_path / "rec"), "image_size": 64}
    directory = collect(root=str(tmp_path), transitions=STEPS + 1, **options)
    assert len(list(directory.glob("*.npz"))) == 2
    card = json.loads((directory / "provenance.json").read_text())["policy_card"]
    assert card["recording"]["seed"] == 0
    for change, message in (
        ({"transitions": 4 * STEPS + 1}, f"whole episodes of {4 * STEPS}: lower it"),
        ({"episodes": 5}, "holds 4 whole ones"),
        ({"action_repeat": 1}, "was recorded with action_repeat 2, not 1: set action_repeat to 2"),
        ({"task": "cartpole_balance"}, "was recorded with task cartpole_swingup, not cartpole_balance"),
        ({"time_limit": None}, "was recorded with time_limit 0.1, not None"),
    ):
        with pytest.raises(ConfigError, match=message):
            collect(root=str(tmp_path / "other"), **options | change)


def test_bad_recordings_are_one_sentence(tmp_path):
    with pytest.raises(
        DataError, match=r"no replay recording .*nowhere: make one with `fit .*record=.*nowhere`"
    ):
        Recording(tmp_path / "nowhere")
    record(tmp_path / "rec", 2 * STEPS)
    with pytest.raises(DataError, match="its training is unfinished, run it again"):
        Recording(tmp_path / "rec")
    record(tmp_path / "whole", 2 * STEPS).recorder.finish()
    rows = tmp_path / "whole" / "rows.npy"
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"rows\.npy is cut off or no array"):
        Recording(tmp_path / "whole")
    np.save(rows, np.zeros(3))
    with pytest.raises(DataError, match="holds float64, not the rows of a replay recording"):
        Recording(tmp_path / "whole")
    (tmp_path / "whole" / "metadata.json").write_text("{}")
    with pytest.raises(DataError, match="is not the metadata of a replay recording"):
        Recording(tmp_path / "whole")


def test_a_state_that_this_machine_does_not_reach_is_refused(tmp_path):
    record(tmp_path / "rec", 2 * STEPS).recorder.finish()
    rows = np.load(tmp_path / "rec" / "rows.npy")
    rows["state"] += 0.1
    np.save(tmp_path / "rec" / "rows.npy", rows)
    with pytest.raises(
        DataError, match="does not start where the environment here does: it was recorded with"
    ):
        collect("cartpole_swingup", root=str(tmp_path), replay_path=str(tmp_path / "rec"), **QUICK)


class Still(pl.LightningModule):
    """Acts by its number of updates."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def explore(self, observation, noise):
        return torch.tanh(noise + self.trainer.global_step / 100)

    def training_step(self, batches, batch_idx):
        for _ in batches:
            self.optimizers().step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(record, max_steps, ckpt_path=None, save=None):
    env = {"task": "cartpole_swingup", "observation": "states", "time_limit": 0.1}
    data = OnlineData(env, start_steps=4, batch_size=2, updates_per_step=4, record=str(record))
    trainer = quiet_trainer(max_steps)
    trainer.fit(Still(), data, ckpt_path=ckpt_path)
    if save:
        trainer.save_checkpoint(save)


def test_a_training_that_resumes_goes_back_to_its_checkpoint(tmp_path):
    fit(tmp_path / "whole", 24)
    fit(tmp_path / "parts", 8, save=tmp_path / "8.ckpt")
    fit(tmp_path / "parts", 16, ckpt_path=tmp_path / "8.ckpt", save=tmp_path / "16.ckpt")  # made longer
    (tmp_path / "parts").rename(tmp_path / "parts.partial")  # as if killed: rows after the checkpoint
    fit(tmp_path / "parts", 24, ckpt_path=tmp_path / "8.ckpt")
    whole, parts = ((tmp_path / name / "rows.npy").read_bytes() for name in ("whole", "parts"))
    assert whole == parts
    assert Recording(tmp_path / "whole").num_episodes == 28 // STEPS


def test_recordings_are_never_written_over(tmp_path):
    fit(tmp_path / "rec", 8, save=tmp_path / "8.ckpt")
    with pytest.raises(ConfigError, match=r"rec exists: give another folder"):
        fit(tmp_path / "rec", 8)
    with pytest.raises(ConfigError, match=r"new does not hold the first 15 observations"):
        fit(tmp_path / "new", 16, ckpt_path=tmp_path / "8.ckpt")
    (tmp_path / "rec").rename(tmp_path / "rec.partial")
    rows = np.load(tmp_path / "rec.partial" / "rows.npy")
    np.save(tmp_path / "rec.partial" / "rows.npy", rows[:3])
    with pytest.raises(ConfigError, match="holds 3 observations, the checkpoint comes after 15"):
        fit(tmp_path / "rec", 16, ckpt_path=tmp_path / "8.ckpt")
    fit(tmp_path / "rec", 8)  # killed before any checkpoint: from the start
    assert len(np.load(tmp_path / "rec" / "rows.npy")) == 15
