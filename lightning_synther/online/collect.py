"""Make a dataset in V-D4RL's layout: a policy acts on states while frames are rendered and stored.

The files are the same, bit for bit, for any number of worker processes, and a collection that was interrupted
goes on with the episodes that it lacks.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from lightning_synther.data.vd4rl import dataset_dir
from lightning_synther.envs.config import EnvConfig, check_episodes_end
from lightning_synther.envs.pool import EnvPool
from lightning_synther.errors import ConfigError
from lightning_synther.online.kinds import Kind, find_kind
from lightning_synther.online.packing import Packer, clean, parts_dir
from lightning_synther.online.provenance import DATA, FILE_NAME, CollectionRequest, Provenance
from lightning_synther.online.recorder import record_episodes, writing
from lightning_synther.progress import Progress

log = logging.getLogger(__name__)

DEFAULT_EPISODES = 20


def collect(
    task: str,
    policy: str = "random",
    root: str = "data/vd4rl",
    episodes: int | None = None,
    seed: int = 0,
    image_size: int = 84,
    num_workers: int = 2,
    policy_path: str | None = None,
    action_repeat: int = 2,
    time_limit: float | None = None,
    progress: bool = True,
    transitions: int | None = None,
    replay_path: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Collect rendered episodes; returns their folder, ``<root>/main/<task>/<policy>/<image_size>px``.

    The folder is continued where it holds an interrupted or smaller collection of the same kind, used as it
    is where it is complete, and not touched where it holds anything else.

    Args:
        task: any task of the dm_control suite, as in ``cheetah_run``.
        policy: ``random``, a shipped policy such as ``medium``, ``medium_expert`` (half of the episodes
            each), or ``medium_replay`` (with `replay_path`); beside a path, a mere name.
        root: folder of V-D4RL's layout.
        episodes: number of episodes (default: 20; of a recording: all).
        seed: of the episodes' starts and of the actions' noise.
        image_size: height and width of a frame; 64 writes NPZ files, everything else HDF5.
        num_workers: processes that render; 0 for none. It never changes the data.
        policy_path: .safetensors file of the behaviour policy.
        action_repeat: control steps per action.
        time_limit: simulated seconds of an episode (default: the task's own).
        progress: show a bar, or where there is no terminal, a line now and then.
        transitions: in place of ``episodes``: as many whole episodes as hold so many transitions.
        replay_path: recording of a training (its ``data.record``), whose episodes are rendered.
        overwrite: delete the data files that are in the folder, and collect anew.

    Raises:
        ConfigError: a setting that cannot be honoured, or a folder that holds other files.
        DataError: an unreadable policy file or record.
        BackendError: no OpenGL, or no room left on the disk; what is finished is kept.

    >>> short = {"image_size": 64, "time_limit": 0.2, "num_workers": 0, "progress": False}
    >>> collect("cartpole_swingup", "expert", root="filmed", episodes=2, **short).as_posix()
    'filmed/main/cartpole_swingup/expert/64px'
    """
    _check_counts(episodes, transitions, num_workers)
    config = EnvConfig(task, "pixels", image_size, 1, action_repeat, time_limit)
    # In a process of its own: dm_control would stay in this one's memory.
    with EnvPool(replace(config, observation="states"), 1, min(num_workers, 1)) as pool:
        max_steps = pool.max_steps
    kind = find_kind(config, policy, policy_path, replay_path)
    if kind.recording is None:
        check_episodes_end(config, max_steps)
    count = _num_episodes(kind, episodes, transitions, max_steps)
    request = CollectionRequest(task, policy, kind.digest, seed, image_size, action_repeat, time_limit)
    directory = dataset_dir(root, task, policy, image_size)
    if overwrite:
        _clear(directory, config, min(num_workers, 1))
    record = Provenance.open(directory, request, count, kind.card)
    while (found := _fill(record, kind, config, num_workers, max_steps, progress)) < (transitions or 0):
        # Episodes ended before the time limit: as many more as this mean length asks for.
        short = (transitions or 0) - found
        record.episodes += max(len(kind.parts), -(-short * record.episodes // found))
    return directory


def _check_counts(episodes: int | None, transitions: int | None, num_workers: int) -> None:
    if episodes is not None and transitions is not None:
        raise ConfigError(f"episodes is {episodes} and transitions is {transitions}: give one of them")
    if any(count is not None and count < 1 for count in (episodes, transitions)) or num_workers < 0:
        raise ConfigError(
            f"episodes is {episodes}, transitions is {transitions} and num_workers is {num_workers}: "
            f"give at least 1 episode or transition, and at least 0 workers"
        )


def _num_episodes(kind: Kind, episodes: int | None, transitions: int | None, max_steps: int | None) -> int:
    if transitions is not None:
        return kind.num_episodes(transitions, max_steps)
    if episodes is None:
        return kind.recording.num_episodes if kind.recording else DEFAULT_EPISODES
    kind.check_count(episodes)
    return episodes


def _fill(
    record: Provenance, kind: Kind, config: EnvConfig, num_workers: int, max_steps: int | None, progress: bool
) -> int:
    """Make the episodes that ``record`` lacks; returns the number of transitions that the dataset holds then."""
    finished = [Packer(record, part, 0).num_finished for part in kind.parts]
    # An interrupted collection may be ahead in one part: the others follow.
    record.episodes = max(record.episodes, len(kind.parts) * (max(finished) - 1) + 1)
    shares = [(record.episodes + later) // len(kind.parts) for later in reversed(range(len(kind.parts)))]
    packers = [Packer(record, part, share) for part, share in zip(kind.parts, shares, strict=True)]
    if all(packer.num_finished >= share for packer, share in zip(packers, shares, strict=True)):
        log.info("%s is complete with its %d episodes", record.directory, record.num_finished)
        return sum(packer.num_transitions for packer in packers)
    jobs = sorted((job for packer in packers for job in packer.missing()), key=lambda job: job.number)
    total = len(jobs) * (max_steps + 1) if max_steps else None
    source = kind.source(config, record.request.seed, parts_dir(record))
    title = f"{config.task} {record.request.policy}"
    with Progress(title, total, "frames", show=progress) as bar, writing(record.directory):
        record.save()
        for packer in packers:
            packer.pack()
        for num_frames, ended in record_episodes(source, jobs, num_workers):
            bar.update(num_frames)
            for packer in packers if ended else ():
                packer.pack()
        clean(record)
    return sum(packer.num_transitions for packer in packers)


def _clear(directory: Path, config: EnvConfig, num_workers: int) -> None:
    """Delete the data files of ``directory``; what else lies there stays. First see that frames can be made."""
    if not directory.is_dir() or not any(directory.iterdir()):
        return
    with EnvPool(config, 1, num_workers) as pool:
        pool.reset([0])
    log.info("%s: its data files are deleted, as overwrite says", directory)
    (directory / FILE_NAME).unlink(missing_ok=True)  # first: without it nothing is taken for a collection
    for path in directory.iterdir():
        if path.suffix in (*DATA, ".partial"):
            path.unlink()
        elif path.name in (".parts", ".cache"):
            shutil.rmtree(path, ignore_errors=True)
