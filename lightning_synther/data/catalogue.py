"""What V-D4RL (Lu et al. 2022, arXiv 2206.04779) publishes: its files, their sizes and SHA-256 sums.

The sums of the 84 px files ship with the package (``assets/vd4rl_checksums.tsv``). The Hugging Face Hub is
asked about the datasets that the list lacks (64 px, and walker_walk/expert): it stores the same facts.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from lightning_synther.command import close_match
from lightning_synther.data.transfer import HEADERS, SourceUnavailableError, require_reachable
from lightning_synther.errors import ConfigError, DataError

REPOSITORY = "conglu/vd4rl"
# The repository as of 5 December 2022, the day after the data went up. Later commits only edit the README.
REVISION = "9cea3dac7e843623fc29e129b480423f879d3bfa"
TASKS = ("cheetah_run", "humanoid_walk", "walker_walk")
POLICIES = ("random", "medium_replay", "medium", "medium_expert", "expert")
IMAGE_SIZES = (64, 84)


@dataclass(frozen=True)
class RemoteFile:
    """One published file: its path below the base URL, its size in bytes and its SHA-256 sum in hex."""

    path: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        """The bare file name; never a path, whatever a list from a foreign host says."""
        return self.path.rsplit("/", 1)[-1]


def is_published(task: str, policy: str, image_size: int) -> bool:
    """Whether V-D4RL's ``main`` collection holds this dataset, so that downloading is worth a try."""
    return task in TASKS and policy in POLICIES and image_size in IMAGE_SIZES


def check_published(task: str, policy: str, image_size: int) -> None:
    """Raise `ConfigError` naming the choices when V-D4RL holds no such dataset."""
    if task not in TASKS:
        raise close_match(task, TASKS, "V-D4RL task")
    if policy not in POLICIES:
        raise close_match(policy, POLICIES, "V-D4RL policy")
    if image_size not in IMAGE_SIZES:
        raise ConfigError(
            f"image_size is {image_size}, but V-D4RL is published at 64 and 84 pixels: give one of them"
        )


def endpoint() -> str:
    """The Hub's address: ``HF_ENDPOINT``, as for Hugging Face's own tools, or the official one."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def published_files(
    folder: str, checksums: str | None, mirror: str | None, revision: str
) -> list[RemoteFile]:
    """The files of ``folder`` (``vd4rl/main/<task>/<policy>/<84px|64px>``) by the list, else the Hub."""
    listed = [file for file in read_checksums(checksums) if file.path.rpartition("/")[0] == folder]
    if listed:
        return listed
    if checksums is not None or mirror is not None:
        raise ConfigError(
            f"{checksums or 'the shipped checksum list'} has no file of {folder}: "
            "give a checksums list that has them, or leave the mirror out to ask the Hugging Face Hub"
        )
    return _hub_files(folder, revision)


def read_checksums(path: str | None = None) -> list[RemoteFile]:
    """Read a list of ``path<TAB>bytes<TAB>sha256`` lines below a header line (None: the shipped one)."""
    try:
        text = (
            Path(path) if path else package_files("lightning_synther") / "assets/vd4rl_checksums.tsv"
        ).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"the checksum list {path} cannot be read ({error}): give a readable --checksums"
        ) from error
    files = []
    for number, line in enumerate(text.splitlines()[1:], start=2):
        match = re.fullmatch(r"([^\t]*[^\t/])\t(\d+)\t([0-9a-f]{64})", line)
        if match is None:
            raise DataError(
                f"line {number} of the checksum list {path} is not path, bytes and sha256 between tabs"
            )
        files.append(RemoteFile(match[1], int(match[2]), match[3]))
    return files


def _hub_files(folder: str, revision: str) -> list[RemoteFile]:
    """Sizes and sums from the Hub's tree API, whose ``lfs.oid`` is a file's SHA-256."""
    url = f"{endpoint()}/api/datasets/{REPOSITORY}/tree/{revision}/{folder}"
    require_reachable(url)
    try:
        with urlopen(Request(url, headers=HEADERS), timeout=10) as response:
            entries: list[dict[str, Any]] = json.load(response)
        return [RemoteFile(entry["path"], entry["lfs"]["size"], entry["lfs"]["oid"]) for entry in entries]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceUnavailableError(
            f"{url} does not list the dataset's files ({type(error).__name__}: {error}): "
            "check the revision, or make data with `collect`"
        ) from error
