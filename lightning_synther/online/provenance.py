"""What a collected dataset says about itself, and how far its collection has come: ``provenance.json``."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lightning_synther.errors import ConfigError, DataError

FILE_NAME = "provenance.json"
DATA = (".hdf5", ".npz")  # what a dataset's files are called
_PACKAGES = ("lightning-synther", "dm-control", "mujoco", "numpy", "h5py")


@dataclass(frozen=True)
class CollectionRequest:
    """Everything that determines a collected episode besides its number.

    ``policy_digest``: SHA-256 of the behaviour policy's file; empty for the random policy.
    """

    task: str
    policy: str
    policy_digest: str
    seed: int
    image_size: int
    action_repeat: int
    time_limit: float | None


@dataclass
class Provenance:
    """Record of a collection in ``directory``: what was asked for, and the files finished so far, in order.

    ``files``: name to the returns of the episodes that it holds.
    """

    directory: Path
    request: CollectionRequest
    episodes: int
    policy_card: dict[str, Any]
    files: dict[str, list[float]] = field(default_factory=dict)

    @property
    def num_finished(self) -> int:
        """Episodes in finished files: always the first so many."""
        return _count(self.files)

    def save(self) -> None:
        """Write the record in one piece: a killed process leaves the one before or this one."""
        returns = [value for part in self.files.values() for value in part]
        content = {
            "source": "collected",
            "complete": self.num_finished >= self.episodes,
            "episodes": self.episodes,
            "return_mean": sum(returns) / len(returns) if returns else None,
            "request": asdict(self.request),
            "policy_card": self.policy_card,
            "versions": {name: version(name) for name in _PACKAGES} | {"python": platform.python_version()},
            "files": self.files,
        }
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.directory / f".{FILE_NAME}.partial"
        partial.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(partial, self.directory / FILE_NAME)

    @classmethod
    def open(
        cls, directory: Path, request: CollectionRequest, episodes: int, policy_card: dict[str, Any]
    ) -> Provenance:
        """Go on with the collection in ``directory``, or begin one where the folder is empty or missing.

        More ``episodes`` than it was made for extend it. `ConfigError` where the
        folder holds data that another request, or no collection at all, has left.
        """
        path = directory / FILE_NAME
        if path.exists():
            found = read_provenance(path)
            _compare(directory, found["request"], asdict(request))
            files = {name: part for name, part in found["files"].items() if (directory / name).exists()}
            if len(files) < len(found["files"]):
                missing = sorted(set(found["files"]) - set(files))[0]
                raise DataError(
                    f"{directory / missing} has gone: put it back, or give overwrite to collect anew"
                )
            return cls(directory, request, max(episodes, _count(files)), policy_card, files)
        entries = directory.iterdir() if directory.is_dir() else ()
        foreign = [entry.name for entry in entries if entry.suffix in DATA and not entry.name.startswith(".")]
        if foreign:
            raise ConfigError(
                f"{directory} holds files that were not collected here ({sorted(foreign)[0]}): "
                f"give another root, another name to the policy, or overwrite"
            )
        return cls(directory, request, episodes, policy_card)


def _count(files: dict[str, list[float]]) -> int:
    return sum(len(returns) for returns in files.values())


def read_provenance(path: Path) -> dict[str, Any]:
    """The record ``path``; raises `DataError` where it is none."""
    try:
        content = json.loads(path.read_text())
        if content["source"] == "collected" and {"request", "files", "episodes"} <= content.keys():
            return content
    except (ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path} is not the record of a collection: move the folder away, or give another root")


def _compare(directory: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for name, value in wanted.items():
        if found.get(name) != value:
            raise other_request(directory, name, found.get(name), value, "give another root, or overwrite")


def other_request(directory: Path, name: str, found: Any, wanted: Any, advice: str) -> ConfigError:
    """The error where the collection in ``directory`` was asked for with another setting ``name``."""
    return ConfigError(f"{directory} was collected with {name}={found}, not {wanted}: {advice}")
