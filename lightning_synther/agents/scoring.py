"""Evaluation of an agent as Lightning's validation and test loops: a batch is the seeds of episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from lightning_synther.envs.config import EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.evaluation.board import tag
from lightning_synther.evaluation.episodes import run_episodes
from lightning_synther.evaluation.figures import returns_figure
from lightning_synther.evaluation.references import references
from lightning_synther.evaluation.rollout import EpisodeResult
from lightning_synther.evaluation.scores import score_summary, unique_results
from lightning_synther.evaluation.video import add_video

#: Scores that go to the loggers, of `score_summary`.
LOGGED = (
    "return_mean",
    "return_stderr",
    "return_low",
    "return_high",
    "return_min",
    "return_max",
    "normalized_score",
    "episode_length",
)


class ScoredAgent(LightningModule):
    """A policy that runs episodes in its environment during validation and test.

    Attributes:
        env: fields of `EnvConfig`, or None for an agent that is not evaluated.
        num_updates: gradient updates so far, the step of everything that is logged.
        eval_workers: processes that step and render environments.
        eval_results: `score_summary` of the last evaluation, and the mean length of its episodes.
    """

    env: dict[str, Any] | None = None
    num_updates: int = 0
    eval_workers: int = 2

    def __init__(self) -> None:
        super().__init__()
        self.eval_results: dict[str, Any] = {}
        self._episodes: list[EpisodeResult] = []

    def policy(self, observation: Tensor) -> Tensor:
        """Actions (B, A) without exploration noise for a batch of observations."""
        raise NotImplementedError

    def on_validation_epoch_start(self) -> None:
        """Begin a new evaluation."""
        self._episodes = []

    def validation_step(self, seeds: Tensor, batch_idx: int) -> None:
        """Run the episodes of ``seeds`` (n,), stepped together; the first one of all is filmed."""
        if self.env is None:
            raise ConfigError("the agent has no environment to be evaluated in: construct it with env")
        film = batch_idx == 0 and self.global_rank == 0 and bool(self._tensorboards())
        self._episodes += run_episodes(
            self.policy, self.env, seeds, self.device, num_workers=self.eval_workers, record=int(film)
        )

    def on_validation_epoch_end(self) -> None:
        """Gather the episodes of all ranks and log their scores: ``eval/...``, of a test ``test/...``."""
        results = unique_results(self._gather())
        assert self.env is not None
        against = references(EnvConfig.from_dict(self.env))
        scores = score_summary([result.episode_return for result in results], against)
        length = sum(result.length for result in results) / len(results)
        self.eval_results = {**scores, "episode_length": length}
        figures = {
            f"{self._verb}/{name}": float(self.eval_results[name])
            for name in LOGGED
            if name in self.eval_results
        }
        # For callbacks; loggers get them below, with the update as their step.
        self.log_dict(figures, logger=False, sync_dist=True)
        if not self.trainer.sanity_checking and self.trainer.is_global_zero:
            for logger in self.loggers:
                logger.log_metrics(figures, step=self.num_updates)
            self._show(results)

    on_test_epoch_start = on_validation_epoch_start
    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def _gather(self) -> list[EpisodeResult]:
        if self.trainer.world_size == 1:
            return self._episodes
        own = [EpisodeResult(r.seed, r.episode_return, r.length) for r in self._episodes]
        gathered: list[list[EpisodeResult]] = [[] for _ in range(self.trainer.world_size)]
        dist.all_gather_object(gathered, own)
        # Distributed samplers deal seeds like cards: rank 0 has the first, rank 1 the second, ...
        return [r for row in zip(*gathered, strict=True) for r in row]

    @property
    def _verb(self) -> str:
        return "test" if self.trainer.testing else "eval"

    def _tensorboards(self) -> list[TensorBoardLogger]:
        return [logger for logger in self.loggers if isinstance(logger, TensorBoardLogger)]

    def _show(self, results: list[EpisodeResult]) -> None:
        """Every return, and a video of one episode, in TensorBoard."""
        lines = [f"| {r.seed} | {r.episode_return:.1f} | {r.length} |" for r in results]
        table = "\n".join(["| seed | return | length |", "| --- | --- | --- |", *lines])
        step, verb = self.num_updates, self._verb
        for logger in self._tensorboards():
            writer = logger.experiment
            writer.add_histogram(
                tag(logger, f"{verb}/returns"), np.array([r.episode_return for r in results]), step
            )
            writer.add_text(tag(logger, f"{verb}/episodes"), table, step)
            if self.trainer.testing:  # once a training: drawing takes a fraction of a second
                figure = returns_figure(self.eval_results)
                writer.add_figure(tag(logger, f"{verb}/return_per_episode"), figure, step)
            for filmed in self._episodes:
                if filmed.frames is not None:
                    add_video(writer, tag(logger, f"{verb}/video"), filmed.frames, step)
