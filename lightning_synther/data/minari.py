"""To and from Minari (Farama's format of offline datasets), bit by bit, one episode in memory at a time.

V-D4RL's row t holds observation t and what *led to* it; Minari's step t holds what *follows* observation t.
So a V-D4RL episode of T rows is a Minari episode of T observations and T - 1 steps, step t being row t + 1.
Frames are (H, W, 3) uint8, stored as they are: Minari's default is JPEG, which loses. The environment's
discounts (T,) lie in ``infos``; a true end (discount 0) is a termination, the time limit a truncation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_synther.data.npz import opened
from lightning_synther.data.streaming import data_files, frame_size, stream_episodes
from lightning_synther.data.vd4rl import dataset_dir
from lightning_synther.data.writers import Episode, Hdf5Writer, NpzWriter, require_absent, written_whole
from lightning_synther.envs.libraries import import_library
from lightning_synther.errors import ConfigError, DataError, SyntherError
from lightning_synther.progress import Progress

EPISODES_PER_FILE = 25
_METADATA = "metadata.json"


def convert(
    source: str, destination: str, task: str | None = None, policy: str | None = None, progress: bool = True
) -> Path:
    """Convert V-D4RL's files to a Minari dataset, or Minari's or OGBench's images to V-D4RL; returns the folder.

    Which of them ``source`` is shows by itself. Nothing is written over.

    Args:
        source: folder of V-D4RL files, or of a Minari dataset (with data/metadata.json in it), or OGBench's NPZ.
        destination: for Minari the folder of datasets, as in MINARI_DATASETS_PATH, which gets
            vd4rl/<task>/<policy>-v0; for V-D4RL the root, which gets main/<task>/<policy>/<84px|64px>.
        task: dm_control task (default: by the source's folders); for OGBench the data set of a single task, as in
            visual-cube-single-play-singletask-v0.
        policy: kind of the data (default: by the source's folders; for OGBench by the name of the data set).
        progress: show a bar, or where there is no terminal, a line now and then.

    Raises:
        ConfigError: the destination exists, or task or policy cannot be told from the source.
        DataError: the source is missing, damaged, or no dataset of images.
        BackendError: minari is not installed.
    """
    path, root = Path(source), Path(destination).absolute()  # Minari joins relative paths to themselves
    if not path.exists():
        raise DataError(f"{path} does not exist: give a folder of V-D4RL files or of a Minari dataset")
    if path.suffix == ".npz" and _is_ogbench(path):
        from lightning_synther.data.ogbench_pixels import to_pixels

        return to_pixels(path, root, task or path.stem, policy, progress)
    import_library("minari", "converting")
    data = dataset_folder(path)
    if data is None:
        known = (path.parent.parent.name, path.parent.name) if path.name.endswith("px") else ()
        return to_minari(path, root, *_names(known, task, policy), progress)
    name = str((_metadata(data) or {}).get("dataset_id", "")).removesuffix("-v0").split("/")
    known = (name[1], name[2]) if name[0] == "vd4rl" and len(name) == 3 else ()
    return to_vd4rl(data, root, *_names(known, task, policy), progress)


def to_minari(path: Path, datasets: Path, task: str, policy: str, progress: bool = False) -> Path:
    """Write the V-D4RL files of ``path`` as the Minari dataset ``vd4rl/<task>/<policy>-v0`` below ``datasets``."""
    import minari
    from gymnasium.spaces import Box
    from minari.dataset.minari_storage import MinariStorage

    name = f"vd4rl/{task}/{policy}-v0"
    target = datasets / name
    require_absent(target)
    first = next(stream_episodes(path), None)
    if first is None:
        raise DataError(f"{path} holds no episodes: give another folder")
    size = frame_size(data_files(path)[0])
    with written_whole(target) as partial:
        storage = MinariStorage.new(
            partial / "data",
            observation_space=Box(0, 255, (size, size, 3), np.uint8),
            action_space=Box(-1, 1, (first.action.shape[1],), np.float32),
            data_format="hdf5",
            jpeg_encoding=False,
        )
        with Progress(f"{name} to Minari", None, "episodes", show=progress) as bar:
            storage.update_episodes(_buffers(stream_episodes(path), bar))
        storage.update_metadata(
            {
                "dataset_id": name,
                "minari_version": minari.__version__,
                "algorithm_name": policy,
                "description": f"V-D4RL frames of dm_control's {task}; infos/discount is its discount.",
            }
        )
    return target


def to_vd4rl(data: Path, root: Path, task: str, policy: str, progress: bool = False) -> Path:
    """Write the Minari dataset whose files lie in ``data`` as V-D4RL files below ``root``."""
    episodes = _read(data)
    first = next(episodes, None)
    if first is None:
        raise DataError(f"{data} holds no episodes: give another dataset")
    target = dataset_dir(root, task, policy, first.frames.shape[-1])
    require_absent(target)
    with (
        written_whole(target) as partial,
        Progress(f"{task} {policy} from Minari", None, "episodes", show=progress) as bar,
    ):
        _write(partial, first, episodes, f"{task}_{policy}", bar)
    return target


def to_buffer(episode: Episode) -> Any:
    """The `minari.EpisodeBuffer` of one V-D4RL episode."""
    from minari.data_collector import EpisodeBuffer

    ended = np.zeros(len(episode.reward) - 1, bool)
    ended[-1] = True
    over = ended & (episode.discount[1:] == 0)
    return EpisodeBuffer(
        observations=np.ascontiguousarray(episode.frames.transpose(0, 2, 3, 1)),
        actions=episode.action[1:],
        rewards=episode.reward[1:],
        terminations=over,
        truncations=ended & ~over,
        infos={"discount": episode.discount},
    )


def from_episode(episode: Any, where: str) -> Episode:
    """The V-D4RL episode of a Minari one (an `EpisodeData` or an `EpisodeBuffer`).

    Without ``infos["discount"]`` discounts are 0 at a termination and 1 elsewhere. Raises `DataError` where
    the observations are no square RGB images, or actions leave [-1, 1].
    """
    frames = _images(episode.observations, where)
    action = np.asarray(episode.actions, np.float32)
    steps = len(frames) - 1
    if action.ndim != 2 or len(action) != steps or len(episode.rewards) != steps:
        raise DataError(
            f"{where} has {steps + 1} observations and actions {action.shape}: it is no whole episode"
        )
    if action.size and np.abs(action).max() > 1 + 1e-6:
        raise DataError(f"{where} has actions up to {np.abs(action).max():g}: rescale them to [-1, 1] first")
    discount = np.ones(steps + 1, np.float32)
    known = (episode.infos or {}).get("discount")
    if known is not None and np.shape(known) == (steps + 1,):
        discount[:] = known
    else:
        discount[1:] = 1 - np.asarray(episode.terminations, np.float32)
    reset = np.zeros((1, action.shape[1]), np.float32)
    reward = np.concatenate([[0], episode.rewards]).astype(np.float32)
    return Episode(frames, np.concatenate([reset, action]), reward, discount)


def _buffers(episodes: Iterator[Episode], bar: Progress) -> Iterator[Any]:
    for episode in episodes:
        yield to_buffer(episode)
        bar.update()


def _read(data: Path) -> Iterator[Episode]:
    import minari

    try:
        for episode in minari.MinariDataset(data).iterate_episodes():
            yield from_episode(episode, f"episode {episode.id} of {data}")
    except SyntherError:
        raise
    except Exception as error:  # whatever a damaged file leads to inside Minari
        raise DataError(f"{data} cannot be read by Minari ({error!r}): get or make it again") from error


def _write(folder: Path, first: Episode, others: Iterator[Episode], name: str, bar: Progress) -> None:
    npz = NpzWriter(folder) if first.frames.shape[-1] == 64 else None
    waiting: Episode | None = first
    number = 0
    while waiting is not None:
        if npz is not None:
            npz.append(*waiting)
            waiting = next(others, None)
            bar.update()
            continue
        with Hdf5Writer(folder / f"{number}_{name}.hdf5") as writer:
            while waiting is not None and writer.num_episodes < EPISODES_PER_FILE:
                writer.append(*waiting)
                waiting = next(others, None)
                bar.update()
        number += 1


def _images(observations: Any, where: str) -> NDArray[np.uint8]:
    """Frames (T, 3, H, W) of observations: RGB images, or a dict that holds one entry of them."""
    entries = list(observations.values()) if isinstance(observations, dict) else [observations]
    arrays = [np.asarray(entry) for entry in entries if not isinstance(entry, (dict, tuple))]
    images = [
        array for array in arrays if array.dtype == np.uint8 and array.ndim == 4 and 3 in array.shape[1::2]
    ]
    if len(images) != 1:
        found = ", ".join(f"{array.dtype} {array.shape[1:]}" for array in arrays) or "nothing"
        raise DataError(f"{where} has observations of {found}: one RGB image of uint8 is needed")
    frames = images[0] if images[0].shape[1] == 3 else np.ascontiguousarray(images[0].transpose(0, 3, 1, 2))
    if frames.shape[2] != frames.shape[3]:
        raise DataError(
            f"{where} has images of {frames.shape[2]}x{frames.shape[3]} pixels: V-D4RL's are square"
        )
    return frames


def _is_ogbench(path: Path) -> bool:
    with opened(path) as file:
        return "observations" in file  # V-D4RL's have images


def dataset_folder(path: Path) -> Path | None:
    """The folder of a Minari dataset's files: ``data`` in ``path``, or ``path``; None for anything else."""
    return next((folder for folder in (path / "data", path) if _metadata(folder)), None)


def _metadata(folder: Path) -> dict[str, Any] | None:
    with suppress(OSError, ValueError):
        content = json.loads((folder / _METADATA).read_text())
        if isinstance(content, dict) and "minari_version" in content:
            return content
    return None


def _names(known: tuple[str, ...], task: str | None, policy: str | None) -> tuple[str, str]:
    found = [given or by_folder for given, by_folder in zip((task, policy), known or ("", ""), strict=True)]
    if not all(found):
        raise ConfigError("the source does not say which task and policy it holds: give --task and --policy")
    return found[0], found[1]
