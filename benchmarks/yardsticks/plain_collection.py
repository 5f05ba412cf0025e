"""The plain way to render a dataset: one process, one loop, dm_control's own render, h5py's own gzip."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
from dm_control import suite

from lightning_synther.online.policies import load_policy
from lightning_synther.seeding import derive_seed


def collect(task: str, policy: str, path: Path, episodes: int, seconds: float, seed: int = 0) -> int:
    """Write ``episodes`` episodes to one HDF5 file of V-D4RL's layout; the number of frames.

    Seeds are those of our `collect`, so the frames are the same.
    """
    domain, name = task.split("_", 1)
    actor = load_policy(policy, task)
    columns: dict[str, list] = {
        key: [] for key in ("observation", "action", "reward", "discount", "step_type")
    }
    env = suite.load(domain, name, task_kwargs={"random": 0, "time_limit": seconds})
    spec = env.action_spec()

    def add(action: np.ndarray, reward: float, discount: float, step_type: int) -> None:
        frame = env.physics.render(84, 84, camera_id=0).transpose(2, 0, 1)
        for key, value in zip(columns, (frame, action, reward, discount, step_type), strict=True):
            columns[key].append(value)

    for episode in range(episodes):
        env.task.random.seed(derive_seed(seed, "collect episode", episode) % 2**32)
        noise = np.random.default_rng(derive_seed(seed, "collect action", episode))
        time_step = env.reset()
        add(np.zeros(spec.shape, np.float32), 0.0, 1.0, 0)
        while not time_step.last():
            state = np.concatenate([np.ravel(value) for value in time_step.observation.values()])
            action = actor.act(state[None].astype(np.float32), noise)[0]
            reward, discount = 0.0, 1.0
            for _ in range(2):
                time_step = env.step(action.astype(np.float64))
                reward += time_step.reward * discount
                discount *= time_step.discount
                if time_step.last():
                    break
            add(action, reward, discount, 2 if time_step.last() else 1)
    types = {"reward": np.float32, "discount": np.float32}
    with h5py.File(path, "w") as file:
        for key, values in columns.items():
            file.create_dataset(key, data=np.array(values, types.get(key)), compression="gzip")
    return len(columns["reward"])
