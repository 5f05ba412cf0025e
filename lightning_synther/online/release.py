"""The command `export-policy`: from a checkpoint of an online run to a behaviour policy with its card.

Torch is imported when the arguments have been parsed, so that ``--help`` answers without it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from lightning_synther.online.training_record import TrainingRecord

log = logging.getLogger(__name__)


def export_policy(
    ckpt_path: str,
    path: str,
    level: str | None = None,
    note: str | None = None,
) -> dict[str, Any]:
    """Write the actor of an online run's checkpoint as a behaviour policy for `collect`, and a card beside it.

    The card (JSON) has the run's command, seed, steps, minutes, hardware and learning curve, and the returns of
    ten sampled and ten deterministic episodes, which are played now.

    Args:
        ckpt_path: checkpoint in the run directory of an online run, ``<run>/agent/updates_<n>.ckpt`` or
            ``final.ckpt``.
        path: .safetensors file to write; `collect` takes it as policy_path.
        level: what the card calls it (default: the file's name), as in ``medium``.
        note: anything else that the card should say.

    Raises:
        DataError: the checkpoint is unreadable or does not lie in the folder of an online run.
        ConfigError: its agent cannot become a policy file, or path does not end in .safetensors.
    """
    from lightning_synther.online.export import export_agent, load_sac

    agent = load_sac(Path(ckpt_path))
    record = TrainingRecord.of_checkpoint(Path(ckpt_path))
    said = {"level": level or Path(path).stem, **record.card(agent.num_updates)}
    card = export_agent(agent, Path(path), said if note is None else {**said, "note": note})
    log.info(
        "%s: %s %s after %d agent steps, return %.0f sampled, %.0f deterministic",
        *(path, card["task"], card["level"], card["agent_steps"]),
        *(card["return_mean"], card["return_mean_deterministic"]),
    )
    return card
