"""TensorBoard with a section for each stage.

Modules name what they log by what they do with it (``train/loss``), as users of their own Trainer expect. In a run
several stages do so, into one logdir: a `SectionLogger` puts the stage before it (``diffusion/train/loss``), and
TensorBoard makes a section of everything before the first slash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only


class SectionLogger(TensorBoardLogger):
    """TensorBoard logger whose tags all begin with ``section``.

    Args:
        save_dir: run directory.
        name: folder of all event files in it.
        version: folder of this logger's event files in that.
        section: first part of every tag.
    """

    LOGGER_JOIN_CHAR = "/"

    def __init__(self, save_dir: str | Path, name: str, version: str, section: str) -> None:
        # No hp_metric: hyperparameters are written once a run (`stages.results.hparams`), not once a Trainer.
        super().__init__(save_dir, name=name, version=version, prefix=section, default_hp_metric=False)
        self.section = section

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write scalars; leaves out Lightning's ``epoch``, as our data never end."""
        super().log_metrics({name: value for name, value in metrics.items() if name != "epoch"}, step)

    @rank_zero_only
    def forget(self, step: int) -> None:
        """Have TensorBoard drop what earlier event files of this folder say of ``step`` and later ones."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        start = Event(session_log=SessionLog(status=SessionLog.START))
        self.experiment._get_file_writer().add_event(start, step)


def tag(logger: Logger, name: str) -> str:
    """What ``name`` is called in the event files of ``logger``, for `SummaryWriter`'s own methods.

    >>> tag(SectionLogger("runs", "tensorboard", "agent", "agent"), "eval/video")
    'agent/eval/video'
    """
    return f"{logger.section}/{name}" if isinstance(logger, SectionLogger) else name
