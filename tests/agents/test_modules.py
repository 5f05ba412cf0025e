"""BC and DrQ-v2 on every kind of observation, under a Trainer: counting, resuming, checkpoints, acting,
guards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger

from lightning_synther.agents import BC, Agent, DrQV2
from lightning_synther.agents.optimization import check_precision
from lightning_synther.errors import ConfigError, DataError, SyntherError
from lightning_synther.networks.encoders import LatentEncoder
from tests.agents.tiny import ACTION_DIM, FRAMES, PIXELS, SIZES, fixed, loader, make, make_batch, trainer

STATES = {**SIZES, "observation": "states", "observation_dim": 5}


@pytest.fixture(scope="module")
def stage1(tmp_path_factory: pytest.TempPathFactory) -> dict[type[Agent], str]:
    """Checkpoints of trained pixel agents."""
    folder, paths = tmp_path_factory.mktemp("stage1"), {}
    for cls in (BC, DrQV2):
        agent = make(cls)
        run = trainer(2, enable_checkpointing=True, default_root_dir=folder)
        run.fit(agent, loader(agent))
        paths[cls] = str(folder / f"{cls.__name__}.ckpt")
        run.save_checkpoint(paths[cls])
    return paths


def on_latents(cls: type[Agent], stage1: dict[type[Agent], str], **settings: Any) -> Agent:
    torch.manual_seed(1)
    settings = {"hidden_dim": 16, "encoder_checkpoint": stage1[cls], **settings}
    return cls(observation="latents", **settings)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("observation", ["pixels", "latents", "states"])
@pytest.mark.parametrize("cls", [BC, DrQV2])
def test_every_agent_learns_from_every_observation(
    cls: type[Agent], observation: str, precision: str, stage1: dict[type[Agent], str]
) -> None:
    settings = {"lr": 3e-3, "stddev_schedule": "0.05"} | ({} if cls is BC else {"bc_weight": 0.01})
    if observation == "latents":
        agent = on_latents(cls, stage1, **settings)
    else:
        agent = make(cls, **settings) if observation == "pixels" else cls(**STATES, **settings)
    batch = make_batch(0, batch_size=32, shape=agent.perception.shape)
    batch = batch._replace(action=torch.tensor([0.5, -0.5]).expand(32, 2))
    before = (agent.policy(batch.observation) - batch.action).square().mean()
    run = trainer(60, precision=precision)
    run.fit(agent, fixed(*[[batch] * 5] * 12))
    assert run.global_step == agent.num_updates == 60
    assert (agent.policy(batch.observation) - batch.action).square().mean() < 0.2 * before


def test_latents_head_acts_exactly_as_the_pixel_agent(stage1: dict[type[Agent], str]) -> None:
    frames = make_batch(3).observation
    for cls in (BC, DrQV2):
        pixel_agent = cls.load_from_checkpoint(stage1[cls])
        agent = on_latents(cls, stage1, heads="pretrained")
        encoder = LatentEncoder.from_checkpoint(stage1[cls])
        expected = pixel_agent.policy(frames)
        assert torch.equal(agent.policy(frames), expected)
        assert torch.equal(agent.policy(encoder.encode(frames)), expected)
        assert not torch.equal(on_latents(cls, stage1).policy(frames), expected)


def test_latents_are_what_the_update_reads(stage1: dict[type[Agent], str]) -> None:
    agent = DrQV2.load_from_checkpoint(stage1[DrQV2])
    frames = make_batch(3).observation
    features = agent.encoder(frames).detach()
    for encoder in (LatentEncoder.from_agent(agent), LatentEncoder.from_checkpoint(stage1[DrQV2])):
        z, z_next = encoder.encode(frames), encoder.encode_next(frames)
        assert z.shape == (8, encoder.latent_dim) == (8, 16)
        assert torch.equal(z[:, encoder.actor_slice], agent.actor.trunk(features))
        assert torch.equal(z[:, encoder.critic_slice], agent.critic.trunk(features))
        assert torch.equal(z_next[:, encoder.actor_slice], z[:, encoder.actor_slice])
        assert torch.equal(z_next[:, encoder.critic_slice], agent.critic_target.trunk(features))
        assert not torch.equal(z, z_next)
        assert LatentEncoder(**encoder.config).latent_dim == 16
    assert LatentEncoder.from_checkpoint(stage1[BC]).latent_dim == 8
    with pytest.raises(DataError, match="image_size and frame_stack"):
        encoder.encode(frames[:, :, :-1])


def test_latents_agent_is_rebuilt_from_its_checkpoint_alone(
    stage1: dict[type[Agent], str], tmp_path: Path
) -> None:
    gone = tmp_path / "stage1.ckpt"
    gone.write_bytes(Path(stage1[DrQV2]).read_bytes())
    agent = on_latents(DrQV2, stage1, encoder_checkpoint=str(gone), heads="pretrained")
    before = {key: value.clone() for key, value in agent.pixel_encoder.state_dict().items()}
    run = trainer(3, enable_checkpointing=True, default_root_dir=tmp_path)
    run.fit(agent, loader(agent, shape=(16,)))
    run.save_checkpoint(tmp_path / "agent.ckpt")
    gone.unlink()
    for key, value in agent.pixel_encoder.state_dict().items():
        assert torch.equal(value, before[key]), "the encoder is frozen"
    loaded = DrQV2.load_from_checkpoint(tmp_path / "agent.ckpt")
    frames = make_batch(4).observation
    assert torch.equal(loaded.policy(frames), agent.policy(frames))
    assert loaded.num_updates == 3
    assert str(gone) not in str(torch.load(tmp_path / "agent.ckpt", weights_only=True)["hyper_parameters"])
    again = on_latents(DrQV2, stage1, encoder_checkpoint=str(tmp_path / "agent.ckpt"))
    assert torch.equal(again.pixel_encoder.encode_next(frames), agent.pixel_encoder.encode_next(frames)), (
        "a latents agent's checkpoint also holds the encoder"
    )


class ReseedEveryBatch(ModelCheckpoint):
    """Checkpoints, and noise that depends on the update alone."""

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        torch.manual_seed(trainer.global_step)


@pytest.mark.parametrize("cls", [BC, DrQV2])
def test_resumed_run_equals_the_uninterrupted_one(cls: type[Agent], tmp_path: Path) -> None:
    def run_to(steps: int, ckpt: Path | None = None) -> Agent:
        agent = make(cls, stddev_schedule="linear(1.0,0.1,10)")
        saving = ReseedEveryBatch(
            tmp_path, filename="last", every_n_train_steps=2, enable_version_counter=False
        )
        run = trainer(steps, enable_checkpointing=True, callbacks=[saving])
        run.fit(agent, loader(agent, updates_per_step=2), ckpt_path=ckpt)
        return agent

    run_to(4)
    resumed = run_to(8, tmp_path / "last.ckpt").state_dict()
    for key, value in run_to(8).state_dict().items():
        assert torch.equal(value, resumed[key]), key


def test_metrics_are_logged_with_the_update_as_step(tmp_path: Path) -> None:
    agent = make(log_every_n_updates=3, bc_weight=2.5)
    logger = CSVLogger(tmp_path)
    run = trainer(8, logger=logger)
    run.fit(agent, loader(agent, updates_per_step=4))
    logger.save()
    lines = (Path(logger.log_dir) / "metrics.csv").read_text().splitlines()
    rows = [dict(zip(lines[0].split(","), line.split(","), strict=True)) for line in lines[1:]]
    assert [row["step"] for row in rows] == ["3", "6"]
    assert {"train/critic_loss", "train/actor_bc_loss", "train/critic_q2"} <= set(rows[0])
    assert "train/critic_loss" in run.callback_metrics


def test_noise_schedule_counts_attempted_updates() -> None:
    settings = {**STATES, "stddev_schedule": "linear(2.0,1.0,100)"}
    features = torch.zeros(1, 5)
    for steps in (1, 2):
        agent = BC(**settings, schedule_steps_per_update=steps)
        agent.num_updates = 10
        assert agent.action_distribution(features).std == pytest.approx(2 - 0.1 * steps)


def test_divergence_names_the_loss_and_spares_the_last_checkpoint(tmp_path: Path) -> None:
    agent = BC(**STATES, log_every_n_updates=2)
    batch = make_batch(0, shape=(5,))
    bad = batch._replace(action=batch.action * float("nan"))
    data = fixed([batch], [batch], [bad], [batch], [batch])
    with pytest.raises(SyntherError, match="actor_bc_loss is nan at update 4"):
        trainer(9).fit(agent, data)
    agent = BC(**STATES)
    saving = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=2, enable_version_counter=False)
    with pytest.raises(SyntherError, match="no checkpoint is written"):
        trainer(9, callbacks=[saving], enable_checkpointing=True).fit(agent, data)
    assert BC.load_from_checkpoint(tmp_path / "last.ckpt").num_updates == 2


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-true"])
def test_precisions_that_break_the_update_are_refused(precision: str) -> None:
    with pytest.raises(ConfigError, match=r"give one of 32-true, 64-true, bf16-mixed"):
        check_precision(precision)


def test_precision_is_checked_before_training() -> None:
    agent = BC(**STATES)
    with pytest.raises(ConfigError, match=r"trainer\.precision is 'bf16-true'"):
        trainer(1, precision="bf16-true").fit(agent, loader(agent, shape=(5,)))


def test_ensembles_of_any_size_and_depth() -> None:
    agent = DrQV2(**STATES, num_critics=5, num_layers=3, layer_norm=True)
    metrics = agent.update(make_batch(0, shape=(5,)))
    assert {f"critic_q{i}" for i in range(1, 6)} <= set(metrics)
    assert not any(value.requires_grad for value in metrics.values())


def test_actor_step_leaves_the_critic_alone() -> None:
    agent = make(bc_weight=2.5)
    critic_steps: list[torch.Tensor] = []
    agent.configure_optimizers()
    agent._optimizers_by_name["critic"].register_step_post_hook(
        lambda *_: critic_steps.extend(p.detach().clone() for p in agent.critic.parameters())
    )
    agent.update(make_batch(0))
    assert all(torch.equal(a, b) for a, b in zip(critic_steps, agent.critic.parameters(), strict=True))
    assert all(p.requires_grad for p in agent.critic.parameters())
    assert not any(p.requires_grad for p in agent.critic_target.parameters())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"observation": "latents", **SIZES}, "there is no encoder: give encoder_checkpoint"),
        ({"observation": "states", "action_dim": 2}, "observation_dim is missing"),
        ({"observation": "pixels"}, "action_dim is missing"),
        ({**STATES, "image_size": 84}, "image_size is 84, which 'states' agents do not have"),
        ({**PIXELS, "encoder_checkpoint": "x"}, "encoder_checkpoint is 'x', which 'pixels' agents"),
        ({**PIXELS, "heads": "pretrained"}, "there is no encoder_checkpoint to take them from"),
        (
            {**PIXELS, "env": {"task": "t", "image_size": 64}},
            r"image_size is given differently.*21.*64 \(env\)",
        ),
        ({**PIXELS, "env": {"task": "t", "observation": "states"}}, "env.observation is 'states'"),
        ({**PIXELS, "image_size": 8}, "the encoder needs at least 15 pixels"),
        ({**PIXELS, "stddev_schedule": "linear(1,2)"}, r"schedule 'linear\(1,2\)' is not understood"),
    ],
)
def test_settings_that_cannot_be_honoured(settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        DrQV2(**settings)


def test_stage1_that_does_not_fit(stage1: dict[type[Agent], str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="without a critic"):
        DrQV2(observation="latents", encoder_checkpoint=stage1[BC])
    with pytest.raises(ConfigError, match="action_dim is given differently"):
        on_latents(DrQV2, stage1, action_dim=6)
    with pytest.raises(ConfigError, match="observation_dim is given differently"):
        on_latents(DrQV2, stage1, observation_dim=100)
    with pytest.raises(ConfigError, match="does not fit this agent"):
        on_latents(DrQV2, stage1, heads="pretrained", hidden_dim=32)
    with pytest.raises(DataError, match="does not exist"):
        on_latents(DrQV2, stage1, encoder_checkpoint=str(tmp_path / "none.ckpt"))
    (tmp_path / "damaged.ckpt").write_bytes(b"no checkpoint")
    with pytest.raises(DataError, match="damaged or foreign"):
        on_latents(DrQV2, stage1, encoder_checkpoint=str(tmp_path / "damaged.ckpt"))


def test_data_that_do_not_fit() -> None:
    agent = BC(**STATES)
    wide = make_batch(0, shape=(6,))
    with pytest.raises(DataError, match=r"observations \(6,\) and 2 action dimensions"):
        trainer(1).fit(agent, fixed([wide]))
    flat = make_batch(0, shape=(5,))
    flat = flat._replace(reward=flat.reward[:, 0])
    with pytest.raises(DataError, match=r"must both be \(B, 1\)"):
        trainer(1).fit(agent, fixed([flat]))
    assert (*FRAMES, ACTION_DIM) == (9, 21, 21, 2)


@pytest.mark.parametrize("cls", [BC, DrQV2])
def test_the_learning_rate_decays_over_the_training(cls: type[Agent]) -> None:
    agent = make(cls, lr=1e-3, lr_schedule="cosine")
    rates: list[float] = []
    step = agent.step

    def watched(*args: Any) -> Any:
        metrics = step(*args)
        rates.append(
            [group["lr"] for opt in agent._optimizers_by_name.values() for group in opt.param_groups]
        )
        return metrics

    agent.step = watched
    trainer(4).fit(agent, loader(agent))
    expected = [1e-3, 1e-3 * (1 + 0.5**0.5) / 2, 5e-4, 1e-3 * (1 - 0.5**0.5) / 2]
    assert [rate[0] for rate in rates] == pytest.approx(expected)
    assert all(len(set(rate)) == 1 for rate in rates), "every optimizer follows the schedule"


def test_a_learning_rate_that_decays_needs_a_length() -> None:
    with pytest.raises(ConfigError, match="needs the length of the training"):
        make(BC, lr_schedule="cosine").update(make_batch(0))
