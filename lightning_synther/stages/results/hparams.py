"""A run's settings and final scores in TensorBoard's HPARAMS tab, where runs under one logdir compare.

The settings are the inputs that the run's stages remember: those that decide its result. They are named as the
command line names them (``diffusion.model.width``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_synther.evaluation.board import SectionLogger
from lightning_synther.stages.results.arms import scores_by_arm
from lightning_synther.stages.trainer.training import TENSORBOARD

#: Section of the scores, and folder of the hyperparameters among those of the stages.
SUMMARY = "summary"
#: What precedes the inputs of a stage on the command line, where it is not the stage's name.
PREFIXES = {"dataset": "data.dataset.", "states": "data.dataset.", "latents": "diffusion.", "agent": ""}
#: Beginnings of stages that repeat the inputs of others, or that no score depends on.
LEFT_OUT = ("evaluation", "agent_", "decode")
#: Inputs that the command line has elsewhere: of every stage, and of the agent.
RENAMED = {"seed": "seed_everything", "windows.": "data.dataset."}
RENAMED_OF_AGENT = {"max_steps": "trainer.max_steps", "precision": "trainer.precision"}
#: Inputs that change no result, or that are the dataset's own.
NO_SETTINGS = ("env.", "root", "mirror", "reference_scores", "model.log_every_n_updates", "model.env")
#: Scores of the synthetic data that compare runs.
FIDELITY = (
    "ks_mean",
    "correlation_error",
    "sliced_wasserstein",
    "dynamics_error",
    "reward_error",
    "memorised",
    "unsupported",
    "out_of_range",
)
SCORES = ("return_mean", "return_stderr", "normalized_score")


def settings(records: Mapping[str, Mapping[str, Any]]) -> dict[str, bool | float | str]:
    """The hyperparameters of a run, flat, from the records of its stages by name.

    What is not set is left out, and so are fingerprints: those of earlier stages stand for these stages' own inputs.
    """
    flat: dict[str, bool | float | str] = {}
    for stage, record in records.items():
        if stage.startswith(LEFT_OUT):
            continue
        for key, value in record["inputs"].items():
            identifies = key in records or key == "stages" or key.endswith("fingerprint")
            if not identifies and value not in (None, "None") and not key.startswith(NO_SETTINGS):
                plain = isinstance(value, (bool, int, float, str))
                flat[_name(stage, key)] = value if plain else str(value)
    return flat


def _name(stage: str, key: str) -> str:
    """What the command line calls an input of a stage."""
    for old, new in (RENAMED | (RENAMED_OF_AGENT if stage == "agent" else {})).items():
        if key == old or (old.endswith(".") and key.startswith(old)):
            return new + key.removeprefix(old)
    return PREFIXES.get(stage, f"{stage}.") + key


def metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """The final scores that runs are compared by, of `stages.results.summary.summarise`, for every arm."""
    arms = scores_by_arm(summary)
    scores = {f"{arm}_{name}": found.get(name) for arm, found in arms.items() for name in SCORES}
    scores |= {f"fidelity_{name}": (summary.get("fidelity") or {}).get(name) for name in FIDELITY}
    scores["hours"] = sum(summary["seconds"].values()) / 3600
    return {name: float(value) for name, value in scores.items() if value is not None}


def write_hparams(
    run_dir: Path, records: Mapping[str, Mapping[str, Any]], summary: Mapping[str, Any]
) -> None:
    """Write one session for the HPARAMS tab, anew each time, on rank zero.

    Without the plugin's experiment summary, in which every run would have to name the settings of all others:
    TensorBoard takes the union of what the runs have.
    """
    from torch.utils.tensorboard.summary import hparams

    for old in (run_dir / TENSORBOARD / SUMMARY).glob("events.out.tfevents.*"):
        old.unlink()
    logger = SectionLogger(run_dir, TENSORBOARD, SUMMARY, SUMMARY)
    scores = metrics(summary)
    _, start, end = hparams(settings(records), {f"{SUMMARY}/{name}": value for name, value in scores.items()})
    for part in (start, end):
        logger.experiment._get_file_writer().add_summary(part)
    logger.log_metrics(scores, step=0)
    logger.experiment.close()
