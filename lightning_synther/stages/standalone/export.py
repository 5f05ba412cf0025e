"""``export``: a checkpoint's policy as a file that needs torch alone."""

from __future__ import annotations

import logging

from lightning_synther.agents.agent import Agent
from lightning_synther.agents.program import describe, export_program
from lightning_synther.errors import ConfigError
from lightning_synther.stages.trainer.checkpoints import load_checkpoint

log = logging.getLogger(__name__)


def export(ckpt_path: str, path: str = "policy.pt2") -> None:
    """Write an agent's policy (preprocessing, encoder, head) as one torch.export program.

    Args:
        ckpt_path: an agent's checkpoint, as in <run>/agent/final.ckpt.
        path: file to write, ending in .pt2.
    """
    agent = load_checkpoint(ckpt_path)
    if not isinstance(agent, Agent):
        raise ConfigError(
            f"export writes a policy, but {ckpt_path} holds {type(agent).__name__}: "
            "give an agent's, as in --ckpt_path=<run>/agent/final.ckpt"
        )
    said = describe(agent)
    log.info(
        "%s: %s %s of shape (batch, %s) to actions (batch, %d)",
        export_program(agent, path),
        said["dtype"],
        said["observation"],
        ", ".join(map(str, said["shape"])),
        said["action_dim"],
    )
