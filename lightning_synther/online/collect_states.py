"""Play a behaviour policy on proprioceptive states, without rendering, into a store of transitions."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from lightning_synther.bounds import check_counts, check_shares
from lightning_synther.data.conditions import write_condition
from lightning_synther.data.rewards import describe_episodes
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.envs.config import EnvConfig, Environment, check_episodes_end
from lightning_synther.envs.factory import make_env
from lightning_synther.errors import ConfigError
from lightning_synther.online.policies import BehaviourPolicy, load_policy, policy_names
from lightning_synther.progress import Progress
from lightning_synther.seeding import derive_seed
from lightning_synther.transition import TransitionSpec


def collect_states(
    task: str,
    policy: str,
    path: str,
    *,
    episodes: int = 20,
    seed: int = 0,
    action_repeat: int | None = None,
    time_limit: float | None = None,
    gamma: float = 0.99,
) -> TransitionStore:
    """Play a policy and store its transitions of states: about 10,000 of them in five seconds.

    Args:
        task: dm_control task, as in ``cheetah_run``, or ``gymnasium:<id>`` with the policy ``random``.
        policy: name of a shipped policy, ``random``, or a .safetensors policy file; several names, as in
            ``random+medium``, play an episode each in turn, for data of mixed quality.
        path: store to write; its condition ``episode`` numbers the episodes.
        episodes: how many to play; those of two seeds have nothing in common.
        seed: of the starts and of the sampled actions.
        action_repeat: environment steps per action (None: 2 in dm_control, 1 in Gymnasium).
        time_limit: simulated seconds of an episode (None: the task's own).
        gamma: discount of one transition.

    >>> store = collect_states("cartpole_swingup", "random", "states", episodes=2, time_limit=0.5)
    >>> len(store), store.spec.observation_dim, store.spec.action_dim
    (50, 5, 1)
    """
    check_counts("", episodes=episodes)
    check_shares("", gamma=gamma)
    if Path(path).exists():
        raise ConfigError(f"the store {path} exists: give another path, or remove it")
    config = EnvConfig.from_dict(
        {"task": task, "observation": "states", "action_repeat": action_repeat, "time_limit": time_limit}
    )
    action_repeat = config.action_repeat
    behaviours = [_behaviour(name, task, action_repeat) for name in policy_names(policy)]
    env = make_env(config)
    check_episodes_end(config, env.max_steps)
    played = {"task": task, "action_repeat": action_repeat, "time_limit": time_limit}
    parts = []
    with Progress(f"{task} {policy}", episodes, "episodes") as progress:
        for episode in range(episodes):
            behaviour = behaviours[episode % len(behaviours)]
            parts.append(_play(env, behaviour, derive_seed(seed, "collect states", episode)))
            progress.update(1)
    rows, discounts = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    terminal = bool((discounts == 0).any())
    spec = TransitionSpec(env.observation_shape[0], env.action_dim, gamma, terminal)
    if terminal:
        rows = np.concatenate([rows, discounts == 0], axis=1).astype(np.float32)
    reward = spec.fields["reward"].start
    fingerprint = f"{policy} action_repeat={action_repeat} time_limit={time_limit} episodes={episodes}"
    with StoreWriter(
        Path(path),
        spec,
        len(rows),
        seed=seed,
        producer="collect_states",
        fingerprint=f"{task} {fingerprint}",
        chunk_size=len(rows),
        extra={
            "name": f"{task} {policy}",
            **{key: value for key, value in played.items() if value is not None},
            "n_step": 1,
            "gamma": gamma,
            **describe_episodes(
                [part[:, reward].sum() for part, _ in parts], [len(part) for part, _ in parts]
            ),
        },
    ) as writer:
        writer.write(0, rows)
        store = writer.commit()
    write_condition(path, "episode", np.repeat(np.arange(episodes), [len(part) for part, _ in parts]))
    return store


def _behaviour(policy: str, task: str, action_repeat: int) -> BehaviourPolicy:
    behaviour = load_policy(policy, task)
    if behaviour.action_repeat not in (None, action_repeat):
        raise ConfigError(
            f"policy {policy} was trained with action_repeat {behaviour.action_repeat}, not {action_repeat}: "
            f"set action_repeat to {behaviour.action_repeat}"
        )
    return behaviour


def _play(env: Environment, policy: BehaviourPolicy, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows s, a, r, s' (T, D) of one episode, and its discounts (T, 1)."""
    rng = np.random.default_rng(seed)
    state, rows, discounts, last = env.reset(seed), [], [], False
    while not last:
        action = policy.act(state[None], rng)[0]
        result = env.step(action)
        rows.append(np.concatenate([state, action, [result.reward], result.observation]))
        discounts.append([result.discount])
        state, last = result.observation, result.last
    return np.stack(rows).astype(np.float32), np.array(discounts, np.float32)
