"""What every agent on states learns, at CPU scale: offline agents from mixed data, online ones from nothing.

    python benchmarks/learning.py --seeds 0 1 2 [--only TD3BC REDQ ...] [--scale 1.0] [--output docs/results]

Offline data are collected here: cheetah_run, half of the episodes by the shipped ``medium`` policy, half by
uniform actions, so that an agent which tells good actions from bad ones beats behaviour cloning. Online
agents learn cartpole_swingup and reacher_easy. Every run is kept in ``learning.json`` as soon as it ends;
the same command goes on with those that are missing. Then the table (``learning.md``) and the curves
(``learning.png``) are written. ``--scale 0.01`` tries everything out.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from learning_report import draw, write_json, write_table
from lightning.pytorch.callbacks import Callback
from report import like_the_command_line, machine

from lightning_synther import agents
from lightning_synther.data.conditions import read_condition
from lightning_synther.data.datamodules import ReplayData
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.updates import UpdateData
from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.online.collect_states import collect_states
from lightning_synther.online.export import play
from lightning_synther.online.interaction import OnlineData
from lightning_synther.online.policies import load_policy
from lightning_synther.seeding import derive_seed
from lightning_synther.stages.trainer.callbacks import SeedEveryStep
from lightning_synther.stages.trainer.precision import resolve_precision

OFFLINE_TASK, ONLINE_TASKS = "cheetah_run", ("cartpole_swingup", "reacher_easy")
EPISODES_EACH, GAMMA = 20, 0.99
STATES: dict[str, Any] = {"observation": "states", "hidden_dim": 256, "log_every_n_updates": 200}
NOISE = {"stddev_schedule": "0.2", "lr": 3e-4}
#: Class, settings beside the defaults, gradient updates.
OFFLINE: dict[str, tuple[str, dict[str, Any], int]] = {
    "BC": ("BC", {"lr": 3e-4, "stddev_schedule": "0.1"}, 20_000),
    "DrQ-v2+BC": ("DrQV2", {**NOISE, "bc_weight": 2.5, "tau": 0.005}, 20_000),
    "TD3+BC": ("TD3BC", {"normalize_states": True}, 20_000),
    "IQL": ("IQL", {"normalize_states": True}, 20_000),
    "EDAC": ("EDAC", {}, 10_000),
    "CQL (DrQ-v2)": ("CQL", {**NOISE, "min_q_weight": 10.0, "tau": 0.005}, 5_000),
    "CQL (SAC)": ("CQLSAC", {"normalize_states": True, "actor_lr": 3e-4}, 5_000),
}
#: Class, settings, updates for each agent step, agent steps.
ONLINE: dict[str, tuple[str, dict[str, Any], int, int]] = {
    "SAC": ("SAC", {}, 1, 30_000),
    "REDQ": ("REDQ", {"utd_ratio": 5, "policy_update_delay": 5}, 5, 4_000),
    "DrQ-v2": ("DrQV2", {"lr": 1e-3, "stddev_schedule": "linear(1.0,0.1,20000)"}, 1, 30_000),
}
#: Whose products of matrices are large enough for bf16 to pay, where the hardware multiplies it.
IN_BF16 = {"EDAC", "CQL", "CQLSAC", "REDQ"}


def mixed_store(path: Path, episodes: int) -> TransitionStore:
    """Transitions of ``episodes`` episodes of each policy; the one that is there, where one is."""
    if path.is_dir():
        return TransitionStore.open(path)
    return collect_states(OFFLINE_TASK, "medium+random", str(path), episodes=2 * episodes, gamma=GAMMA)


def described(store: TransitionStore) -> str:
    """What the data are, in words."""
    extra = store.metadata.extra
    rewards = store.rows[:, store.spec.fields["reward"]].flatten()
    returns = np.bincount(read_condition(store.path, "episode").flatten().long().numpy(), rewards)
    return f"{extra['name']} in turn, {len(returns)} episodes (mean {returns.mean():.0f}, best {returns.max():.0f})"


def random_return(task: str, episodes: int = 10) -> float:
    """Mean return of uniform actions."""
    policy, env = load_policy("random", task), EnvConfig(task, "states")
    return float(np.mean([play(policy, env, seed) for seed in range(episodes)]))


class Curve(Callback):
    """The mean return of every evaluation, and the seconds of training until then."""

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self.started = time.process_time()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep what the evaluation found."""
        assert isinstance(pl_module, agents.Agent)
        self.points.append(
            {
                "updates": pl_module.num_updates,
                "return": pl_module.eval_results["return_mean"],
                "cpu_s": round(time.process_time() - self.started, 1),
            }
        )


def train(
    agent: agents.Agent, data: UpdateData[Any], updates: int, seed: int, name: str, evaluations: int
) -> dict[str, Any]:
    """Train, evaluating on the way; every point of the curve and the last evaluation's returns."""
    curve, every = Curve(), max(1, updates // data.updates_per_step // evaluations)
    agent.eval_workers = 0  # nothing is rendered
    precision = resolve_precision("auto" if type(agent).__name__ in IN_BF16 else "32-true")
    trainer = pl.Trainer(
        max_steps=updates,
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        val_check_interval=every,
        check_val_every_n_epoch=None,
        callbacks=[SeedEveryStep(seed, name), curve],
    )
    trainer.fit(agent, datamodule=data)
    result = {"curve": curve.points, "returns": agent.eval_results["returns"]}
    return {**result, "updates": updates, "precision": precision}


def offline_run(
    name: str, seed: int, scale: float, evaluations: int, store: TransitionStore
) -> dict[str, Any]:
    """One offline agent on the mixed data."""
    cls, settings, updates = OFFLINE[name]
    updates = max(100, round(updates * scale / 100) * 100)
    pl.seed_everything(derive_seed(seed, "learning", name) % 2**32, verbose=False)
    sizes = {"observation_dim": store.spec.observation_dim, "action_dim": store.spec.action_dim}
    env = {"task": OFFLINE_TASK, "observation": "states"}
    agent = getattr(agents, cls)(**{**STATES, **sizes, **settings}, env=env)
    data = ReplayData(str(store.path), mixing="real", updates_per_step=10, seed=seed, eval_seed=seed)
    return train(agent, data, updates, seed, name, evaluations)


def online_run(name: str, task: str, seed: int, scale: float, evaluations: int) -> dict[str, Any]:
    """One online agent on one task."""
    cls, settings, ratio, steps = ONLINE[name]
    steps = max(100, round(steps * scale / 100) * 100)
    pl.seed_everything(derive_seed(seed, "learning", name, task) % 2**32, verbose=False)
    config = EnvConfig(task, "states")
    env = ControlEnv(config)
    sizes = {"observation_dim": env.observation_shape[0], "action_dim": env.action_dim}
    agent = getattr(agents, cls)(**{**STATES, **sizes, **settings}, env=config.to_dict())
    updates_per_step = max(ratio, 8 // ratio * ratio)
    data = OnlineData(
        config,
        start_steps=min(1000, steps),
        update_to_data_ratio=ratio,
        updates_per_step=updates_per_step,
        gamma=GAMMA,
        seed=seed,
        eval_seed=seed,
    )
    updates = steps * ratio // updates_per_step * updates_per_step
    return train(agent, data, updates, seed, f"{name} {task}", evaluations)


def runs(args: argparse.Namespace) -> dict[str, Callable[[], dict[str, Any]]]:
    """Every run that is wanted, by its key task/agent/seed."""
    wanted: dict[str, Callable[[], dict[str, Any]]] = {}
    for seed in args.seeds:
        for name in OFFLINE:
            wanted[f"{OFFLINE_TASK}/{name}/{seed}"] = lambda name=name, seed=seed: offline_run(
                name, seed, args.scale, args.evaluations, mixed_store(args.store, args.episodes)
            )
        for name in ONLINE:
            for task in ONLINE_TASKS:
                wanted[f"{task}/{name}/{seed}"] = lambda name=name, seed=seed, task=task: online_run(
                    name, task, seed, args.scale, args.evaluations
                )
    only = args.only or [*OFFLINE, *ONLINE]
    return {key: run for key, run in wanted.items() if key.split("/")[1] in only}


def main() -> None:
    """Run what is missing, then write table and curves."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", help="agents, as the table names them")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the updates")
    parser.add_argument("--episodes", type=int, default=EPISODES_EACH, help="of each policy in the data")
    parser.add_argument("--evaluations", type=int, default=10, help="of each run, on the way")
    parser.add_argument("--store", type=Path, default=Path("runs/learning/mixed"))
    parser.add_argument("--output", type=Path, default=Path("docs/results"))
    args = parser.parse_args()
    like_the_command_line()
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / "learning.json"
    record = json.loads(path.read_text()) if path.exists() else {"runs": {}, "scale": args.scale}
    if record["scale"] != args.scale:
        parser.error(f"{path} holds runs of --scale {record['scale']}: give another --output")
    for key, run in runs(args).items():
        if key not in record["runs"]:
            started = time.perf_counter()
            record["runs"][key] = run()
            write_json(path, record)
            mean = np.mean(record["runs"][key]["returns"])
            print(f"{key}: return {mean:.0f}, {time.perf_counter() - started:.0f} s", flush=True)
    tasks = {key.split("/")[0] for key in record["runs"]}
    record["random"] = {task: random_return(task) for task in sorted(tasks)}
    if OFFLINE_TASK in tasks:
        record["data"] = described(mixed_store(args.store, args.episodes))
    command = shlex.join(["python", "benchmarks/learning.py", *sys.argv[1:]])
    record |= {"command": command, "date": time.strftime("%Y-%m-%d")}
    record["machine"] = machine("torch", "lightning", "dm-control", "mujoco")
    write_json(path, record)
    write_table(record, args.output / "learning.md")
    draw(record, args.output / "learning.png")
    print((args.output / "learning.md").read_text())


if __name__ == "__main__":
    main()
