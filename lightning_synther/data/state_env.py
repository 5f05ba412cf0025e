"""The environment that states come from: as somebody gives it, and as a store's metadata keep it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_synther.envs.config import EnvConfig
from lightning_synther.errors import ConfigError

#: Entries of a store's metadata that say which dm_control environment its states come from.
PLAYED = ("task", "action_repeat", "time_limit")


def env_settings(env: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """An environment on states that is given as its task or as fields of `EnvConfig`, which are checked."""
    if env is None:
        return None
    given = {"task": env} if isinstance(env, str) else dict(env)
    config = EnvConfig.from_dict({"observation": "states", **given})
    if config.observation != "states":
        raise ConfigError(
            f"env.observation is {config.observation!r}, but the data hold states: leave it out"
        )
    return {**given, "observation": "states", "action_repeat": config.action_repeat}


def played_env(extra: Mapping[str, Any]) -> dict[str, Any] | None:
    """The environment (fields of `EnvConfig`) that a store's metadata ``extra`` name, or None."""
    if "env" in extra:
        return dict(extra["env"])
    if "task" not in extra:
        return None
    return {"observation": "states", **{key: extra[key] for key in PLAYED if key in extra}}
