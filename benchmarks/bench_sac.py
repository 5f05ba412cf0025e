"""Soft Actor-Critic on states, acting and learning: gradient updates a second, ``--utd`` of them for an agent step.

    python benchmarks/bench_sac.py [--utd 1] [--actor_every 2] [--no-layer_norm] [--updates 100] [--repeats 7]
                                   [--threads 1] [--arms plain sb3 float32 bf16]

All arms play cheetah_run with action repeat 2 and learn with batch 256 and two hidden layers of 256: the
equations in a plain PyTorch loop (`yardsticks/sac.py`, the same computation as the package's agent),
stable-baselines3's SAC in its own loop (it has no LayerNorm, and its actor learns on every update: ``--actor_every 1
--no-layer_norm`` has all arms compute that), and the package's agent and `OnlineData` in a Trainer, in
float32 and under bf16 autocast. Each runs in a thread of its own and waits for its turn, ``--updates`` at a
time, so that the arms are interleaved with all the overhead that their own loops have. ``sb3`` needs the
extra ``benchmark``.
"""

from __future__ import annotations

import argparse
import logging
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from report import interleaved, save, table
from yardsticks import sac as yardstick

from lightning_synther.agents import SAC
from lightning_synther.allocator import keep_freed_memory
from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.control import ControlEnv
from lightning_synther.online.interaction import OnlineData

ENV = EnvConfig("cheetah_run", "states", action_repeat=2)
BATCH, WIDTH, START, GAMMA = 256, 256, 1000, 0.99
ENDLESS = 8_000_000

Pause = Callable[[], None]


class Turns:
    """A loop in a thread of its own, which goes on to its next pause whenever this is called."""

    def __init__(self, loop: Callable[[Pause], Any], threads: int) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(loop, threads), daemon=True)
        self._thread.start()

    def __call__(self) -> None:
        """Let it run one turn."""
        self._go.release()
        self._done.acquire()
        if self._error is not None:
            raise self._error

    def _run(self, loop: Callable[[Pause], Any], threads: int) -> None:
        self._go.acquire()
        try:
            torch.set_num_threads(threads)
            loop(self._pause)
        except BaseException as error:
            self._error = error
            self._done.release()

    def _pause(self) -> None:
        self._done.release()
        self._go.acquire()


@dataclass(frozen=True)
class Setting:
    """What all arms compute."""

    updates: int  # in a turn
    utd: int
    actor_every: int
    layer_norm: bool


def plain(pause: Pause, setting: Setting) -> None:
    """The straightforward loop."""
    env, rng = ControlEnv(ENV), np.random.default_rng(0)
    options = {"layer_norm": setting.layer_norm, "actor_every": setting.actor_every}
    agent = yardstick.SAC(env.observation_shape[0], env.action_dim, WIDTH, **options)
    memory = yardstick.Memory(1_000_000, env.observation_shape[0], env.action_dim)
    state = env.reset(0)
    for step in range(ENDLESS):
        action = rng.uniform(-1, 1, env.action_dim).astype(np.float32)
        if step >= START:
            with torch.no_grad():
                noise = torch.randn(1, env.action_dim)
                action = agent.sample(torch.from_numpy(state)[None], noise)[0][0].numpy()
        result = env.step(action)
        memory.add(state, action, result.reward, result.observation, GAMMA * result.discount)
        state = env.reset() if result.last else result.observation
        for _ in range(setting.utd if step >= START else 0):
            agent.update(memory.sample(BATCH, rng), torch.randn(2, BATCH, env.action_dim))
            if agent.num_updates % setting.updates == 0:
                pause()


def package(pause: Pause, setting: Setting, precision: str) -> None:
    """The package's agent in a Trainer."""

    class EverySoManyUpdates(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step % setting.updates == 0:
                pause()

    data = OnlineData(
        ENV,
        start_steps=START,
        batch_size=BATCH,
        gamma=GAMMA,
        update_to_data_ratio=setting.utd,
        updates_per_step=max(8, setting.utd),
    )
    agent = SAC(
        **data.agent_arguments(),
        hidden_dim=WIDTH,
        log_every_n_updates=1000,
        layer_norm=setting.layer_norm,
        actor_every=setting.actor_every,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        precision=precision,  # type: ignore[arg-type]
        max_steps=ENDLESS,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        callbacks=[EverySoManyUpdates()],
    )
    trainer.fit(agent, data)


def sb3(pause: Pause, setting: Setting) -> None:
    """stable-baselines3's SAC in its own loop."""
    import gymnasium
    import stable_baselines3
    from stable_baselines3.common.callbacks import BaseCallback

    class Control(gymnasium.Env):  # type: ignore[type-arg]
        def __init__(self) -> None:
            self.env = ControlEnv(ENV)
            self.observation_space = gymnasium.spaces.Box(
                -np.inf, np.inf, self.env.observation_shape, np.float32
            )
            self.action_space = gymnasium.spaces.Box(-1, 1, (self.env.action_dim,), np.float32)

        def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
            return self.env.reset(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            result = self.env.step(action)
            return result.observation, result.reward, False, result.last, {}

    steps = setting.updates // setting.utd

    class EverySoManyUpdates(BaseCallback):
        def _on_step(self) -> bool:
            if self.num_timesteps > START and (self.num_timesteps - START) % steps == 0:
                pause()
            return True

    agent = stable_baselines3.SAC(
        "MlpPolicy",
        Control(),
        learning_rate=1e-3,
        batch_size=BATCH,
        learning_starts=START,
        gradient_steps=setting.utd,
        policy_kwargs={"net_arch": [WIDTH, WIDTH]},
        device="cpu",
    )
    agent.learn(ENDLESS, callback=EverySoManyUpdates())


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--utd", type=int, default=1, help="updates for an agent step")
    parser.add_argument("--actor_every", type=int, default=2)
    parser.add_argument("--layer_norm", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--updates", type=int, default=100, help="updates in a turn")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    names = ["plain", "sb3", "float32", "bf16"]
    parser.add_argument("--arms", nargs="+", default=names, choices=names)
    args = parser.parse_args()
    args.updates += -args.updates % max(8, args.utd)  # whole passes of the Trainer's loop
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    keep_freed_memory()
    setting = Setting(args.updates, args.utd, args.actor_every, args.layer_norm)
    loops: dict[str, Callable[[Pause], Any]] = {
        "plain": lambda pause: plain(pause, setting),
        "sb3": lambda pause: sb3(pause, setting),
        "float32": lambda pause: package(pause, setting, "32-true"),
        "bf16": lambda pause: package(pause, setting, "bf16-mixed"),
    }
    turns: dict[str, Callable[[], Any]] = {name: Turns(loops[name], args.threads) for name in args.arms}
    taken = interleaved(turns, args.repeats)
    rows = [["arm", "updates/s (wall)", "updates per cpu s", "times plain (cpu)"]]
    for name, seconds in taken.items():
        seconds["updates_per_s"], seconds["updates_per_cpu_s"] = (
            args.updates / seconds[key] for key in ("wall_s", "cpu_s")
        )
        seconds["speedup"] = taken[args.arms[0]]["cpu_s"] / seconds["cpu_s"]
        figures = [f"{seconds[key]:.0f}" for key in ("updates_per_s", "updates_per_cpu_s")]
        rows.append([name, *figures, f"{seconds['speedup']:.2f}"])
    print(table(rows))
    packages = ["torch", "lightning", "dm-control", "mujoco"]
    packages += ["stable-baselines3"] if "sb3" in args.arms else []
    name = "sac" if args.utd == 1 else f"sac_utd{args.utd}"
    path: Path = save(name, {"settings": vars(args), "seconds": taken}, *packages)
    print(path)


if __name__ == "__main__":
    main()
