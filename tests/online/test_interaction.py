"""Online data in a Trainer: how environment steps and updates alternate, and with which policy."""

import lightning.pytorch as pl
import pytest
import torch

from lightning_synther.agents import TD3BC
from lightning_synther.errors import ConfigError
from lightning_synther.online.interaction import OnlineData
from lightning_synther.online.pixels import OnlinePixelData
from tests.agents.tiny import trainer as quiet_trainer

ENV = {"task": "cartpole_balance", "observation": "states", "time_limit": 0.2}  # 10 agent steps an episode


class Counter(pl.LightningModule):
    """Its action says how many updates it has had; it keeps what it was given."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.num_updates, self.received = 0, []

    def explore(self, observation, noise):
        return torch.full_like(noise, self.num_updates / 1000)

    def training_step(self, batches, batch_idx):
        self.received.append(batches)
        for _ in batches:
            self.num_updates += 1
            self.optimizers().step()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.0)


def fit(max_steps=24, callbacks=(), ckpt_path=None, logger=False, **options):
    data = OnlineData(ENV, **({"start_steps": 20, "batch_size": 4} | options))
    agent = Counter()
    trainer = quiet_trainer(max_steps, logger=logger, log_every_n_steps=1, callbacks=list(callbacks))
    trainer.fit(agent, data, ckpt_path=ckpt_path)
    return trainer, agent, data


@pytest.mark.parametrize(
    ("ratio", "num_envs", "updates_per_step"),
    [(1, 1, 1), (1, 1, 8), (1, 2, 8), (0.5, 1, 2), (20, 1, 20), (4, 3, 12)],
)
def test_agent_steps_and_updates_are_counted_right(ratio, num_envs, updates_per_step):
    max_steps = 3 * updates_per_step
    trainer, agent, data = fit(
        max_steps,
        update_to_data_ratio=ratio,
        num_envs=num_envs,
        updates_per_step=updates_per_step,
        start_steps=21,
    )
    assert trainer.global_step == agent.num_updates == max_steps
    assert [len(batches) for batches in agent.received] == [updates_per_step] * 3
    start = 21 if num_envs != 2 else 22  # whole rounds of the environments
    assert data.environments.num_steps == start + max_steps / ratio
    assert agent.received[0][0].observation.shape == (4, 5)
    assert agent.received[0][0].reward.shape == agent.received[0][0].discount.shape == (4, 1)


def test_start_steps_are_random_and_later_ones_use_the_latest_policy():
    _, _, data = fit(updates_per_step=8)
    replay = data.environments.replay
    actions = replay.unflatten(replay.rows()).action[:44, 0]
    assert actions[:20].unique().numel() == 20
    assert actions[:20].min() < -0.5
    expected = torch.tensor([0.0, 8.0, 16.0]).repeat_interleave(8) / 1000
    torch.testing.assert_close(actions[20:], expected)


def test_the_batch_of_an_update_depends_on_its_number_alone():
    # The same steps and draws, whether Lightning sees the updates in twos or in sixes.
    batches = []
    for updates_per_step in (2, 6):
        _, agent, _ = fit(12, updates_per_step=updates_per_step, replay_capacity=20, start_steps=20, seed=3)
        batches.append([batch for received in agent.received for batch in received])
    assert torch.equal(batches[0][0].action, batches[0][0].action)
    assert not torch.equal(batches[0][0].observation, batches[0][1].observation)


def test_episode_returns_are_logged(tmp_path):
    from lightning.pytorch.loggers import CSVLogger

    fit(32, logger=CSVLogger(tmp_path), updates_per_step=8)
    lines = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    header = lines[0].split(",")
    returns = [line.split(",")[header.index("train/episode_return")] for line in lines[1:]]
    assert len([value for value in returns if value]) == 5
    assert all(10 < float(value) <= 20 for value in returns if value)  # 20 control steps of at most 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"updates_per_step": 8, "num_envs": 3}, r"not a whole number of steps of data\.num_envs=3"),
        (
            {"updates_per_step": 1, "update_to_data_ratio": 20},
            r"data\.updates_per_step=1 at .*=20 is not a whole",
        ),
        ({"update_to_data_ratio": 0}, r"update_to_data_ratio=0"),
        ({"update_to_data_ratio": -1.0}, r"update_to_data_ratio=-1\.0"),
        ({"num_envs": 0}, r"data\.num_envs is 0"),
        ({"num_envs": 64, "updates_per_step": 64, "start_steps": 10}, r"1 … start_steps \(10\)"),
        ({"updates_per_step": 5}, r"updates_per_step 5 does not divide trainer\.max_steps 24"),
        ({"batch_size": 0}, r"data\.batch_size"),
        ({"gamma": 1.5}, r"data\.gamma is 1\.5: give a number above 0 and at most 1"),
        ({"gamma": 0.0}, r"data\.gamma is 0\.0"),
        ({"replay_capacity": 0}, r"data\.replay_capacity is 0: give at least data\.batch_size \(4\)"),
        ({"replay_capacity": -5}, r"data\.replay_capacity is -5"),
        ({"replay_capacity": 3}, r"data\.replay_capacity is 3"),
        (
            {"replay_capacity": 7, "num_envs": 8, "updates_per_step": 8},
            r"replay_capacity is 7: .* data\.num_envs \(8\)",
        ),
        ({"max_steps": -1}, r"set trainer\.max_steps"),
    ],
)
def test_settings_that_cannot_be_honoured(options, message):
    with pytest.raises(ConfigError, match=message):
        fit(**options)


@pytest.mark.parametrize("capacity", [4, 19])
def test_a_memory_below_the_start_steps_draws_from_the_latest(capacity):
    _, agent, data = fit(8, replay_capacity=capacity, batch_size=4, updates_per_step=8)
    assert len(data.environments.replay) == capacity
    latest = data.environments.replay.rows()
    drawn = torch.cat([torch.cat(list(batch), dim=-1) for batch in agent.received[0]])
    assert {tuple(row) for row in drawn.tolist()} <= {tuple(row) for row in latest.tolist()}


def test_an_agent_that_cannot_act_while_it_learns_is_refused_before_the_first_step():
    data = OnlineData(ENV, start_steps=20, batch_size=4)
    with pytest.raises(
        ConfigError, match=r"^TD3BC cannot act while it learns, which OnlineData needs: use SAC"
    ):
        quiet_trainer(8).fit(TD3BC(observation_dim=5, action_dim=1, hidden_dim=8), data)
    assert not hasattr(data, "environments")


@pytest.mark.parametrize(
    "settings",
    [{"task": "lqr_lqr_2_1"}, {"task": "gymnasium:Pendulum-v1", "env_kwargs": {"max_episode_steps": -1}}],
)
@pytest.mark.parametrize(("cls", "observation"), [(OnlineData, "states"), (OnlinePixelData, "pixels")])
def test_an_environment_without_a_time_limit_is_refused_when_its_sizes_are_asked_for(
    cls, observation, settings
):
    with pytest.raises(ConfigError, match="may never end: give"):
        cls(env={"observation": observation, **settings}).agent_arguments()


def test_pixels_are_refused():
    with pytest.raises(ConfigError, match=r"data\.env\.observation is 'pixels'"):
        OnlineData({"task": "cartpole_balance"})
