"""From settings to an environment, whichever library has it."""

from __future__ import annotations

from lightning_synther.envs.config import DM_CONTROL, EnvConfig, Environment


def make_env(config: EnvConfig, seed: int = 0) -> Environment:
    """The environment of ``config``.

    Raises `ConfigError` for a task that its library does not have, `BackendError` where the library, or OpenGL,
    is missing.
    """
    if config.library == DM_CONTROL:
        from lightning_synther.envs.control import ControlEnv

        return ControlEnv(config, seed)
    from lightning_synther.envs.gymnasium_env import GymnasiumEnv

    return GymnasiumEnv(config, seed)
