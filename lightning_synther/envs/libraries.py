"""Gymnasium and the packages that register environments with it: imported, and asked for an environment."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from lightning_synther.envs.config import EnvConfig
from lightning_synther.envs.tasks import use_headless_rendering
from lightning_synther.errors import BackendError, ConfigError

log = logging.getLogger(__name__)

#: Packages that register further environments, by how their ids begin.
PROVIDERS = {
    "gymnasium_robotics": r"AntMaze_|PointMaze_|AdroitHand|FrankaKitchen|Fetch|HandManipulate|HandReach",
    "minigrid": r"MiniGrid-|BabyAI-",
    "ale_py": r"ALE/",
}


def import_library(name: str, what: str) -> ModuleType:
    """Import an optional package of environments; `BackendError` says what needs it and how it is installed."""
    use_headless_rendering()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        extra = name if name in ("gymnasium", "ogbench", "minari") else None
        package = f'"lightning-synther[{extra}]"' if extra else name.replace("_", "-")
        raise BackendError(f"{what} needs the package {name} ({error}): pip install {package}") from error


def make_gymnasium(config: EnvConfig) -> Any:
    """What `gymnasium.make` builds of ``config``; `ConfigError` where it has no such environment or arguments."""
    gymnasium = import_library("gymnasium", config.task)
    module, _, name = config.task.partition(":")[2].rpartition(":")
    if module or config.library == "ogbench":
        import_library(module or "ogbench", config.task)
    elif package := next((key for key, begins in PROVIDERS.items() if re.match(begins, name)), None):
        register = getattr(gymnasium, "register_envs", lambda module: None)
        register(import_library(package, config.task))
    if name not in gymnasium.registry:
        near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.5)
        said = f"did you mean {' or '.join(near)}?" if near else "install and name the package that has it"
        raise ConfigError(f"{config.library} has no environment {name!r}: {said}")
    _keep_mujocos_news()
    settings = {"disable_env_checker": True, **(config.env_kwargs or {})}
    attempts: list[dict[str, Any]] = [
        {"render_mode": "rgb_array"},
        {},
    ]  # the last for what cannot be rendered
    if config.library == "ogbench":  # renders without being asked to
        attempts = [{}]
    elif "envs.mujoco" in str(gymnasium.spec(name).entry_point):
        size = max(config.image_size, 84)  # instead of 480, which takes twice as long
        attempts.insert(0, {"render_mode": "rgb_array", "width": size, "height": size})
    try:
        for attempt in attempts:
            with contextlib.suppress(_UnknownKeyword), _unknown_keywords(attempt), warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".*precision lowered by casting")  # of float64 spaces
                return gymnasium.make(name, **{**attempt, **settings})
    except (TypeError, ImportError, gymnasium.error.Error) as error:
        raise ConfigError(
            f"{config.task} cannot be made with env_kwargs {config.env_kwargs or {}} ({error}): change them"
        ) from error


class _UnknownKeyword(Exception):
    """An environment does not take an argument that only some do."""


@contextlib.contextmanager
def _unknown_keywords(arguments: Iterable[str]) -> Iterator[None]:
    try:
        yield
    except TypeError as error:
        if any(f"keyword argument '{name}'" in str(error) for name in arguments):
            raise _UnknownKeyword from error
        raise


def _keep_mujocos_news() -> None:
    """Log MuJoCo's warnings; by itself it prints them and writes MUJOCO_LOG.TXT into the working directory."""
    with contextlib.suppress(ImportError):
        import mujoco

        if mujoco.get_mju_user_warning() is None:
            mujoco.set_mju_user_warning(_log_warning)


def _log_warning(message: str) -> None:
    if "settotalmass" not in message:  # of Gymnasium's own models: nothing that a user could change
        log.warning("MuJoCo: %s", message)
