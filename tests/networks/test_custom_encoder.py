"""An encoder of one's own is rebuilt from a checkpoint, and agents act through it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_synther.agents.modules import BC
from lightning_synther.agents.td3_bc_module import TD3BC
from lightning_synther.errors import ConfigError, DataError
from lightning_synther.networks.custom_encoder import CustomEncoder
from lightning_synther.networks.frozen import load_encoder, save_encoder
from lightning_synther.stages.trainer.checkpoints import load_checkpoint, save_module

ENV = {"task": "cartpole_swingup", "image_size": 16}


class Linear(CustomEncoder):
    """A random projection, with dropout, which has to stay off."""

    def __init__(
        self, image_size: int = 84, frame_stack: int = 3, size: int = 4, wrong: bool = False
    ) -> None:
        super().__init__(size, image_size, frame_stack, size=size, wrong=wrong)
        self.linear = nn.Linear(3 * frame_stack * image_size**2, size)
        self.dropout = nn.Dropout(0.9)
        self.wrong = wrong

    def latents(self, frames: Tensor) -> Tensor:
        z: Tensor = self.dropout(self.linear(frames.flatten(1) / 255))
        return z[:, 1:] if self.wrong else z


@pytest.fixture
def frames() -> Tensor:
    return torch.randint(256, (5, 9, 16, 16), dtype=torch.uint8)


@pytest.fixture
def saved(tmp_path):
    encoder = Linear(image_size=16, size=6)
    save_encoder(encoder, tmp_path / "encoder.ckpt", action_dim=2, env=ENV)
    return encoder, tmp_path / "encoder.ckpt"


def test_a_checkpoint_rebuilds_it(saved, frames):
    encoder, path = saved
    loaded = load_encoder(path)
    assert isinstance(loaded, Linear)
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    torch.testing.assert_close(loaded.train().encode(frames), encoder.encode(frames))
    z, z_next = loaded.encode_both(frames)
    torch.testing.assert_close(z, z_next)


@pytest.mark.parametrize("algorithm", [BC, TD3BC])
def test_agents_act_on_frames_through_it_and_train_their_trunks(saved, frames, algorithm, tmp_path):
    encoder, path = saved
    agent = algorithm(observation="latents", encoder_checkpoint=str(path), env=ENV, hidden_dim=8)
    torch.testing.assert_close(agent.policy(frames), agent.policy(encoder.encode(frames)))
    assert any("trunk" in name and p.requires_grad for name, p in agent.named_parameters())
    save_module(agent, tmp_path / "agent.ckpt")
    again = load_checkpoint(tmp_path / "agent.ckpt")
    torch.testing.assert_close(again.policy(frames), agent.policy(frames))


def test_pretrained_heads_are_not_in_there(saved):
    _, path = saved
    with pytest.raises(
        ConfigError, match=r"the encoder is a tests\.networks\.test_custom_encoder\.Linear, which has none"
    ):
        BC(observation="latents", encoder_checkpoint=str(path), env=ENV, heads="pretrained")


def test_what_does_not_fit_is_refused(frames):
    with pytest.raises(DataError, match=r"frames are \(9, 16, 16\), the encoder was made for \(9, 84, 84\)"):
        Linear().encode(frames)
    with pytest.raises(DataError, match=r"Linear.latents gives \(5, 3\) for 5 observations"):
        Linear(image_size=16, wrong=True).encode(frames)


def test_a_class_that_cannot_be_imported_is_named(saved):
    _, path = saved
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["encoder_config"]["kind"] = "nowhere.Encoder"
    torch.save(checkpoint, path)
    with pytest.raises(DataError, match=r"a nowhere.Encoder, which cannot be imported here"):
        load_encoder(path)
