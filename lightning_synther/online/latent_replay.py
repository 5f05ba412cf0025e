"""Synthetic experience replay in an online run from pixels: in the latent space of the encoder as it is by then.

The authors of SynthER never released this. What happens as the encoder moves was decided so: real batches are frames,
and train everything, the encoder too; synthetic batches are latents, and train the heads alone
(`agents.latent_replay_module`). At every resynthesis the whole replay memory is encoded with the current encoder, and a
new diffusion model replaces all synthetic latents, so that none is older than one interval. An encoder that was frozen
in between would have to be good before it has seen a good policy's frames. How far latents have moved by the end of an
interval is measured and logged (``encoder_drift``): where that is much, resynthesise more often.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_synther.agents.agent import Agent
from lightning_synther.agents.latent_replay_module import LatentReplayDrQV2
from lightning_synther.errors import ConfigError
from lightning_synther.networks.encoders import LatentEncoder
from lightning_synther.online.pixel_replay import OnlinePixelReplay
from lightning_synther.online.pixels import OnlinePixelData
from lightning_synther.online.synthetic import OnlineSynthERData
from lightning_synther.transition import Transition, TransitionSpec

#: Observations that are encoded again at the next resynthesis, to see how far their latents have moved.
NUM_PROBES = 256
FRAMES_PER_CHUNK = 128


class OnlinePixelSynthERData(OnlineSynthERData, OnlinePixelData):
    """Online interaction in pixels with synthetic experience replay in the latent space.

    Update k is a synthetic one, of latents, where ``(k + 1) * ratio`` passes a whole number: at 0.5 every second one.
    ``update_to_data_ratio`` counts both kinds: at 1 and a ratio of 0.5 there is one real update in two agent steps, as
    DrQ-v2 has it, and one synthetic one, which needs no convolution. n-step returns are folded into the latent
    transitions, whose discount is gamma to the power n.

    Args:
        online: arguments of `OnlineSynthERData` and `OnlinePixelData`.
    """

    def __init__(self, **online: Any) -> None:
        super().__init__(**online)
        self._probes: dict[str, Tensor] = {}

    def row_spec(self, agent: Agent) -> TransitionSpec:
        """Layout of latent transitions."""
        if agent.hparams["observation"] != "pixels" or not isinstance(agent, LatentReplayDrQV2):
            raise ConfigError(
                f"{type(agent).__name__} does not train on pixels and latents: use LatentReplayDrQV2 for online "
                "training from pixels with synthetic latents"
            )
        latent_dim = 2 * agent.hparams["feature_dim"]
        return TransitionSpec(
            latent_dim, agent.perception.action_dim, self.gamma**self.n_step, self.terminals
        )

    def real_transitions(self, agent: Agent) -> tuple[Transition, dict[str, float]]:
        """All windows of the replay memory, encoded; and how far the latents of the last time have moved."""
        replay = self.environments.replay
        assert isinstance(replay, OnlinePixelReplay)
        encoder = LatentEncoder.from_agent(agent).to(agent.device).eval()
        figures = {}
        if self._probes:
            latents, _ = self._encode(encoder, replay, self._probes["rows"].numpy())
            figures["encoder_drift"] = drift(self._probes["latents"], latents)
        windows = replay.windows()
        first = int(windows[0]) - 1
        before, after = self._encode(encoder, replay, np.arange(first, replay.num_rows))
        action, reward, discount = replay.numbers_of(windows)
        at, then = torch.from_numpy(windows - 1 - first), torch.from_numpy(windows + self.n_step - 1 - first)
        newest = windows[-NUM_PROBES:] - 1
        self._probes = {"rows": torch.from_numpy(newest), "latents": before[torch.from_numpy(newest - first)]}
        return Transition(before[at], action, reward, after[then], discount), figures

    def draw(self, updates: range) -> list[Transition]:
        """Whole batches: stacked frames, or latents where update and stock say so."""
        batches = []
        for update in updates:
            generator = self.generator(update)
            enough = self.num_synthetic >= self.batch_size
            synthetic = enough and int((update + 1) * self.ratio) > int(update * self.ratio)
            batches.append(self.synthetic_batch(generator) if synthetic else self.real_batch(generator))
        return batches

    def state_dict(self) -> dict[str, Any]:
        """Also the latents whose movement is measured."""
        return {**super().state_dict(), "probes": self._probes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        super().load_state_dict(state_dict)
        self._probes = dict(state_dict["probes"])

    def _encode(
        self, encoder: LatentEncoder, replay: OnlinePixelReplay, rows: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """Latents z and z' (N, latent_dim) of the observations that end in ``rows`` (N,), on the CPU."""
        device = next(encoder.parameters()).device
        parts = []
        with self._trainer.precision_plugin.predict_step_context(), torch.no_grad():
            for start in range(0, len(rows), FRAMES_PER_CHUNK):
                frames = replay.frames_at(rows[start : start + FRAMES_PER_CHUNK]).to(device)
                parts.append([latents.float().cpu() for latents in encoder.encode_both(frames)])
        before, after = (torch.cat(list(part)) for part in zip(*parts, strict=True))
        return before, after


def drift(before: Tensor, now: Tensor) -> float:
    """Root mean square movement of latents (N, Z), in their standard deviations over observations.

    >>> round(drift(torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [1.0]])), 3)
    0.707
    """
    spread = before.std(0).square().mean().sqrt()
    return float((now - before).square().mean().sqrt() / spread.clamp_min(1e-12))
