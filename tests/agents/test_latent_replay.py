"""DrQ-v2 whose heads also learn from latents of its own encoder."""

import copy

import pytest
import torch

from lightning_synther.agents import DrQV2, LatentReplayDrQV2
from lightning_synther.errors import DataError
from lightning_synther.networks.encoders import LatentEncoder
from lightning_synther.transition import Transition

SIZES = {"action_dim": 2, "image_size": 64, "feature_dim": 4, "hidden_dim": 8, "env": None}


def made(cls):
    torch.manual_seed(0)
    return cls(**SIZES)


def batch(observation, next_observation):
    generator = torch.Generator().manual_seed(1)
    action = torch.rand(3, 2, generator=generator) * 2 - 1
    ones = torch.ones(3, 1)
    return Transition(observation, action, 0.5 * ones, next_observation, 0.9 * ones)


def frames():
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (2, 3, 9, 64, 64), generator=generator, dtype=torch.uint8)


def test_frames_are_drq_v2():
    ours, theirs = made(LatentReplayDrQV2), made(DrQV2)
    draws = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(3))
    assert ours.update(batch(*frames()), draws) == theirs.update(batch(*frames()), draws)
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_latents_of_frames_give_the_heads_what_the_frames_give_them():
    on_frames = made(LatentReplayDrQV2)
    on_latents = copy.deepcopy(on_frames)
    encoder = LatentEncoder.from_agent(on_frames)
    now, then = frames()
    latents = batch(encoder.encode(now), encoder.encode_next(then))
    draws = torch.randn(2, 3, 2, generator=torch.Generator().manual_seed(3))
    seen = on_frames.update(batch(now, then), draws)
    metrics = on_latents.update(latents, draws)
    # The critics' losses come before any step; the actor's after one of trunk and heads.
    for name in ("critic_loss", "critic_q1", "critic_target_q"):
        torch.testing.assert_close(metrics[f"latent_{name}"], seen[name])
    before = made(LatentReplayDrQV2)
    for name, value in on_latents.named_parameters():
        moved = not torch.equal(value, before.get_parameter(name))
        assert moved == (".trunk." not in name and not name.startswith("encoder.")), name
    torch.testing.assert_close(on_latents.critic.q[0].weight, on_frames.critic.q[0].weight)
    on_latents.update(batch(now, then), draws)  # and frames again
    assert not torch.equal(on_latents.encoder.convnet[0].weight, before.encoder.convnet[0].weight)


def test_other_batches_are_refused():
    agent = made(LatentReplayDrQV2)
    agent.check(batch(torch.zeros(3, 8), torch.zeros(3, 8)))
    with pytest.raises(DataError, match="the data have observations"):
        agent.check(batch(torch.zeros(3, 9), torch.zeros(3, 9)))
