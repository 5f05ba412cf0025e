"""Make a dataset in V-D4RL's layout: a policy acts on states while frames are rendered and stored.

The files are the same, bit for bit, for any number of worker processes, and a collection that was interrupted
goes on with the episodes that it lacks: workers leave every episode as an NPZ file. That is the 64 px layout
already; for the 84 px layout these are parts, packed into HDF5 files of `EPISODES_PER_FILE` episodes as soon
as they are there.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from lightning_synther.data.vd4rl import Hdf5Writer, dataset_dir
from lightning_synther.envs.control import ControlEnv, EnvConfig
from lightning_synther.errors import ConfigError
from lightning_synther.online import policies
from lightning_synther.online.provenance import CollectionRequest, Provenance
from lightning_synther.online.recorder import record_episodes, writing
from lightning_synther.progress import Progress

log = logging.getLogger(__name__)

EPISODES_PER_FILE = 25  # about 35 MB of HDF5


def collect(
    task: str,
    policy: str = "random",
    root: str = "data/vd4rl",
    episodes: int = 20,
    seed: int = 0,
    image_size: int = 84,
    num_workers: int = 2,
    policy_path: str | None = None,
    action_repeat: int = 2,
    time_limit: float | None = None,
    progress: bool = True,
) -> Path:
    """Collect rendered episodes; returns their folder, ``<root>/main/<task>/<policy>/<image_size>px``.

    The folder is continued where it holds an interrupted or smaller collection of the same kind, used as it
    is where it is complete, and not touched where it holds anything else.

    Args:
        task: any task of the dm_control suite, as in ``cheetah_run``.
        policy: ``random`` or a shipped policy such as ``medium``; beside `policy_path`, a mere name.
        root: folder of V-D4RL's layout.
        episodes: number of episodes.
        seed: of the episodes' starts and of the actions' noise.
        image_size: height and width of a frame; 64 writes NPZ files, everything else HDF5.
        num_workers: processes that render; 0 for none. It never changes the data.
        policy_path: .safetensors file of the behaviour policy.
        action_repeat: control steps per action.
        time_limit: simulated seconds of an episode (default: the task's own).
        progress: show a bar, or where there is no terminal, a line now and then.

    Raises:
        ConfigError: a setting that cannot be honoured, or a folder that holds other files.
        DataError: an unreadable policy file or record.
        BackendError: no OpenGL, or no room left on the disk; what is finished is kept.
    """
    if episodes < 1 or num_workers < 0:
        raise ConfigError(
            f"episodes is {episodes} and num_workers is {num_workers}: "
            f"give at least 1 episode and at least 0 workers"
        )
    config = EnvConfig(task, "pixels", image_size, 1, action_repeat, time_limit)
    source = policy_path or policy
    env = ControlEnv(replace(config, observation="states"))
    record = _open_record(config, policy, source, Path(root), episodes, seed)
    if record.num_finished >= record.episodes:
        log.info("%s is complete with its %d episodes", record.directory, record.num_finished)
        return record.directory
    packer = _Packer(record)
    missing = packer.missing()
    total = env.max_steps and len(missing) * (env.max_steps + 1)
    with Progress(f"{task} {policy}", total, "frames", show=progress) as bar, writing(record.directory):
        record.save()
        packer.pack()
        for num_frames, finished in record_episodes(config, source, seed, packer.parts, missing, num_workers):
            bar.update(num_frames)
            if finished:
                packer.pack()
        packer.clean()
    return record.directory


def _open_record(
    config: EnvConfig, policy: str, source: str, root: Path, episodes: int, seed: int
) -> Provenance:
    """Check the policy, then the folder."""
    if Path(policy).name != policy or policy.startswith("."):
        raise ConfigError(
            f"policy {policy!r} cannot name a folder: "
            f"give a plain name as policy, and the file as policy_path"
        )
    behaviour = policies.load_policy(source, config.task)
    if behaviour.action_repeat not in (None, config.action_repeat):
        raise ConfigError(
            f"policy {source} was trained with action_repeat {behaviour.action_repeat}, "
            f"not {config.action_repeat}: set action_repeat to {behaviour.action_repeat}"
        )
    digest = ""
    if source != "random":
        digest = hashlib.sha256(policies.policy_path(source, config.task).read_bytes()).hexdigest()
    request = CollectionRequest(
        config.task, policy, digest, seed, config.image_size, config.action_repeat, config.time_limit
    )
    directory = dataset_dir(root, config.task, policy, config.image_size)
    return Provenance.open(directory, request, episodes, policies.read_card(source, config.task))


class _Packer:
    """Turns the episodes that workers left into the dataset's files, in order, and keeps the record."""

    def __init__(self, record: Provenance) -> None:
        self._record = record
        self._hdf5 = record.request.image_size != 64
        self.parts = record.directory / ".parts" if self._hdf5 else record.directory

    def missing(self) -> list[int]:
        """Episodes that are neither in a finished file nor left as a part."""
        return [i for i in range(self._record.num_finished, self._record.episodes) if not self._part(i)]

    def pack(self) -> None:
        """Finish every file whose episodes are all there."""
        record = self._record
        while record.num_finished < record.episodes:
            first = record.num_finished
            last = min(first + (EPISODES_PER_FILE if self._hdf5 else 1), record.episodes)
            parts = [part for i in range(first, last) if (part := self._part(i))]
            if len(parts) < last - first:
                return
            name = self._write(parts) if self._hdf5 else parts[0].name
            record.files[name] = [_episode_return(part) for part in parts]
            record.save()
            if self._hdf5:
                for part in parts:
                    part.unlink()

    def clean(self) -> None:
        """Remove the folder of parts; every one is in a file now."""
        if self._hdf5:
            shutil.rmtree(self.parts, ignore_errors=True)

    def _part(self, index: int) -> Path | None:
        return next(self.parts.glob(f"{index:06d}-*.npz"), None)

    def _write(self, parts: list[Path]) -> str:
        request = self._record.request
        name = f"{len(self._record.files)}_{request.task}_{request.policy}.hdf5"
        with Hdf5Writer(self._record.directory / name) as writer:
            for part in parts:
                with np.load(part, allow_pickle=False) as episode:
                    writer.append(
                        episode["image"].transpose(0, 3, 1, 2),
                        episode["action"],
                        episode["reward"],
                        episode["discount"],
                    )
        return name


def _episode_return(part: Path) -> float:
    with np.load(part, allow_pickle=False) as episode:
        return float(episode["reward"].sum(dtype=np.float64))
