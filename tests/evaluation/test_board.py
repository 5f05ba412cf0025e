"""Tags in sections, and no session of hyperparameters for each Trainer."""

from lightning.pytorch.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_synther.evaluation.board import SectionLogger, tag


def test_tags_begin_with_the_section_and_epochs_are_left_out(tmp_path):
    logger = SectionLogger(tmp_path, "tensorboard", "agent_real_only", "agent")
    logger.log_hyperparams({"lr": 0.1})
    logger.log_metrics({"train/loss": 1.0, "epoch": 0}, step=3)
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard" / "agent_real_only")).Reload()
    assert events.Tags()["scalars"] == ["agent/train/loss"]
    assert events.Tags()["tensors"] == []
    assert tag(logger, "eval/video") == "agent/eval/video"
    assert tag(TensorBoardLogger(tmp_path), "eval/video") == "eval/video"


def test_what_is_forgotten_does_not_show(tmp_path):
    for start in (0, 3):
        logger = SectionLogger(tmp_path, "tensorboard", "agent", "agent")
        logger.forget(start)
        for step in range(start, start + 5):
            logger.log_metrics({"train/loss": float(start)}, step)
        logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard" / "agent")).Reload()
    seen = [(event.step, event.value) for event in events.Scalars("agent/train/loss")]
    assert seen == [(0, 0), (1, 0), (2, 0), (3, 3), (4, 3), (5, 3), (6, 3), (7, 3)]
