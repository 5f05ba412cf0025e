"""A parsed config as a run: its stages, and what `fit`, `validate`, `test` and `predict` do with them."""

from __future__ import annotations

import logging
from functools import cached_property
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from lightning_synther.agents.agent import Agent
from lightning_synther.data.synther_npz import export_npz
from lightning_synther.diffusion.module import LatentDiffusion
from lightning_synther.errors import ConfigError
from lightning_synther.stages.agent import AgentStage
from lightning_synther.stages.assembly import make_chain, make_resynthesis, named_env
from lightning_synther.stages.chain import Artefacts, Chain
from lightning_synther.stages.config.module import ModuleConfig
from lightning_synther.stages.config.sections import EvaluationConfig, check_interval
from lightning_synther.stages.config.sizes import check_env
from lightning_synther.stages.config.stores import check_stores
from lightning_synther.stages.config.synthesis import SynthesisConfig
from lightning_synther.stages.evaluation import VALIDATION_SEED, evaluate
from lightning_synther.stages.record.ranks import is_rank_zero
from lightning_synther.stages.record.stage import write_json
from lightning_synther.stages.results.arms import AGENT, ARMS, COMPARED
from lightning_synther.stages.results.summary import describe_scores, write_summary
from lightning_synther.stages.synthetic.sampling import sample_store
from lightning_synther.stages.trainer.checkpoints import load_checkpoint
from lightning_synther.stages.trainer.training import TrainerFactory

log = logging.getLogger(__name__)

DEFAULT_RUN_DIR = "runs/default"
#: Trainer settings that hold for every stage.
SHARED_TRAINER = ("accelerator", "devices", "num_nodes", "strategy", "precision")


class Run:
    """What the subcommands do.

    Args:
        config: a subcommand's parsed config, nothing of it instantiated.
    """

    def __init__(self, config: Namespace) -> None:
        self.config = config

    def check(self) -> None:
        """Raise `ConfigError` for settings that a stage of ``fit`` would refuse, possibly hours from now."""
        if self.config.model is None or self.config.data is None:
            raise ConfigError(
                "fit needs a config with `model` and `data`: start from --config configs/vd4rl_cheetah.yaml"
            )
        check_interval("checkpoint_every", self.config.checkpoint_every)
        if self.chain is None:
            check_stores(ModuleConfig.of(self.config.data), self._arms)
        self._agent_stage(None).check(None if self.chain is None else self.chain.check())

    def fit(self) -> None:
        """Run the missing stages, then train and evaluate the agent, then write the summary."""
        artefacts = self.chain.run() if self.chain is not None else None
        results = {AGENT: self._agent_stage(artefacts).run()}
        for arm, mixing in self._arms.items():
            results[arm] = self._agent_stage(artefacts, f"agent_{arm}", mixing=mixing).run()
        write_summary(self.run_dir, self.seed, results)

    def validate(self) -> None:
        """Evaluate a checkpoint on validation episodes, to choose one by.

        They are ``evaluation.episodes`` of ``data.eval_seed``; a checkpoint alone gets those of seed 0, its default.
        """
        self._evaluate("validate")

    def test(self) -> None:
        """Evaluate a checkpoint on the test episodes: ``evaluation.episodes`` of ``evaluation.seed``."""
        self._evaluate("test")

    def predict(self) -> None:
        """Sample synthetic transitions from a diffusion checkpoint."""
        cfg = self.config
        model = load_checkpoint(self._checkpoint("diffusion"))
        if not isinstance(model, LatentDiffusion):
            raise ConfigError(
                f"predict samples from a diffusion model, but {self._checkpoint('diffusion')} holds "
                f"{type(model).__name__}: give --ckpt_path=<run>/diffusion/final.ckpt"
            )
        config = SynthesisConfig(**cfg.synthesis.as_dict())
        output = Path(cfg.output or self.run_dir / "predict")
        store = sample_store(self.factory, model, output, config, seed=self.seed)
        log.info("%d synthetic transitions of %d numbers in %s", len(store), store.spec.dim, output)
        if cfg.npz is not None and is_rank_zero():
            log.info("exported to %s", export_npz(store, cfg.npz))

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config.seed_everything)

    @property
    def run_dir(self) -> Path:
        """The run directory; that of a checkpoint which is given alone."""
        checkpoint = self.config.get("ckpt_path")
        if self.config.run_dir is None and checkpoint is not None:
            folder = Path(checkpoint).absolute().parent
            return folder.parent if (folder / "stage.json").exists() else folder
        return Path(self.config.run_dir or DEFAULT_RUN_DIR)

    @property
    def factory(self) -> TrainerFactory:
        """Trainers of this run."""
        trainer = self.config.trainer.as_dict()
        shared = {key: trainer[key] for key in SHARED_TRAINER if trainer.get(key) is not None}
        return TrainerFactory(self.run_dir, self.seed, shared, trainer["enable_progress_bar"] is not False)

    @cached_property
    def chain(self) -> Chain | None:
        """The stages before the agent; they run where its data name a dataset and no store."""
        return make_chain(self.config, self.factory)

    @property
    def _arms(self) -> dict[str, str]:
        """What the agent is compared with, and what each is trained on."""
        return {arm: str(ARMS[arm].mixing) for arm in COMPARED if self.config.comparison[arm]}

    def _agent_stage(self, artefacts: Artefacts | None, name: str | None = None, **data: Any) -> AgentStage:
        cfg = self.config
        model = ModuleConfig.of(cfg.model)
        return AgentStage(
            factory=self.factory,
            name=name or ("diffusion" if issubclass(model.cls, LatentDiffusion) else "agent"),
            model=model,
            data=ModuleConfig.of(cfg.data),
            data_overrides=data,
            trainer=cfg.trainer.as_dict(),
            checkpoint_every=cfg.checkpoint_every,
            keep_every=cfg.keep_every,
            evaluation=EvaluationConfig(**cfg.evaluation.as_dict()),
            artefacts=artefacts,
            resynthesis=make_resynthesis(cfg, self.factory),
        )

    def _evaluate(self, verb: str) -> None:
        cfg = self.config
        path = self._checkpoint("agent")
        agent = load_checkpoint(path)
        if not isinstance(agent, Agent):
            raise ConfigError(
                f"{verb} runs a policy, but {path} holds {type(agent).__name__}: "
                "give an agent's, as in --ckpt_path=<run>/agent/final.ckpt"
            )
        check_env(named_env(cfg), agent.env, path)
        config = EvaluationConfig(**cfg.evaluation.as_dict())
        seed = VALIDATION_SEED if cfg.data is None else cfg.data.init_args.get("eval_seed", VALIDATION_SEED)
        if verb == "validate":
            log.info(
                "validate: %d episodes of seed %d (data.eval_seed); evaluation.seed %d is that of the test episodes",
                config.episodes,
                seed,
                config.seed,
            )
        results = evaluate(self.factory, verb, agent, config, validation_seed=seed)
        if is_rank_zero():
            self.run_dir.mkdir(parents=True, exist_ok=True)
            write_json(self.run_dir / f"{verb}.json", {"checkpoint": str(path), **results})
        log.info("%s: %s", path, describe_scores(results))

    def _checkpoint(self, stage: str) -> Path:
        given = self.config.get("ckpt_path")
        return Path(given) if given else self.run_dir / stage / "final.ckpt"
