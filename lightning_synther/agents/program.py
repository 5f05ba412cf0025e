"""An agent's policy as one `torch.export` program: preprocessing, encoder and actor, without this package."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, export, save

from lightning_synther.agents.agent import Agent
from lightning_synther.errors import ConfigError
from lightning_synther.networks.encoders import LatentEncoder
from lightning_synther.networks.trunk import FeatureMapLinear

#: File in the program's archive that says what it takes and gives.
DESCRIPTION = "policy.json"


class PolicyProgram(nn.Module):
    """Observations to deterministic actions (B, A); an agent on latents takes the frames that they encode."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        latents, actor = agent.pixel_encoder, agent.actor
        networks: list[nn.Module] = [agent.encoder if latents is None else latents]
        if isinstance(latents, LatentEncoder):
            # The actor reads the actor trunk's columns of a latent only, so the critic's trunks stay behind.
            networks, actor = [latents.encoder, latents.actor_trunk], _without_trunk(actor)
        self.networks = (
            nn.Sequential(*(_plain(part) for part in [*networks, actor])).requires_grad_(False).eval()
        )

    def forward(self, observation: Tensor) -> Tensor:
        """Stacked frames (B, C, H, W) uint8 or states (B, O) to actions (B, A)."""
        action: Tensor = self.networks(observation)
        return action


def policy_program(agent: Agent) -> ExportedProgram:
    """The policy of ``agent`` as a program on the CPU in float32, for batches of any size."""
    if agent.hparams["normalize_states"] and not agent.encoder.fitted:
        raise ConfigError(
            "the agent has not seen its data, so its states cannot be normalised: train it first"
        )
    module = PolicyProgram(agent).to("cpu", torch.float32)
    return export(module, (_example(agent),), dynamic_shapes=({0: Dim("batch", min=1)},))


def export_program(agent: Agent, path: str | Path) -> Path:
    """Write the policy of ``agent`` to ``path`` (.pt2): one file that runs where torch runs; returns it.

    ``torch.export.load(path).module()`` is a function from observations to deterministic actions in
    [-max_action, max_action]: stacked frames (B, 3 * frame_stack, S, S) uint8, oldest first, or states
    (B, O) float32. The archive's ``policy.json`` says which, and names the environment.
    """
    path = Path(path)
    if path.suffix != ".pt2":
        raise ConfigError(f"path is {path}: a program's file name ends in .pt2")
    program, description = policy_program(agent), json.dumps(describe(agent), indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        save(program, partial, extra_files={DESCRIPTION: description})
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def describe(agent: Agent) -> dict[str, Any]:
    """What the program takes and gives, in plain types."""
    example = _example(agent)
    return {
        "algorithm": type(agent).__name__,
        "observation": "states" if agent.hparams["observation"] == "states" else "frames",
        "shape": list(example.shape[1:]),
        "dtype": str(example.dtype).removeprefix("torch."),
        "action_dim": agent.perception.action_dim,
        "env": agent.env,
        "num_updates": agent.num_updates,
    }


def _example(agent: Agent) -> Tensor:
    hparams = agent.hparams
    if hparams["observation"] == "states":
        return torch.zeros(2, *agent.perception.shape)
    size = hparams["image_size"]
    return torch.zeros(2, 3 * hparams["frame_stack"], size, size, dtype=torch.uint8)


def _without_trunk(actor: nn.Module) -> nn.Module:
    actor = copy.copy(actor)
    actor._modules = {**actor._modules, "trunk": nn.Identity()}
    return actor


def _plain(module: nn.Module) -> nn.Module:
    """A copy whose ``state_dict`` holds its weights as they are; the published order is for checkpoints."""
    module = copy.deepcopy(module)
    for name, child in module.named_modules():
        if isinstance(child, FeatureMapLinear):
            plain = nn.Sequential(_RowsFirst(), nn.Linear(child.in_features, child.out_features))
            plain[1].weight, plain[1].bias = child.weight, child.bias
            module.set_submodule(name, plain)
    for parameter in module.parameters():  # an archive's tensors are contiguous, channels-last ones are not
        parameter.data = parameter.data.contiguous()
    return module


class _RowsFirst(nn.Module):
    """A feature map (B, C, H, W) as a vector in channels-last order."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, H * W * C)."""
        return x.permute(0, 2, 3, 1).flatten(1)
