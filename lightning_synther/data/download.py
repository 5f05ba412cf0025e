"""Fetch V-D4RL's files, each checked by size and SHA-256, into the official layout.

Own HTTP code (`transfer`) on the standard library rather than huggingface_hub: files go straight into the
official layout instead of a cache, any web server can be the mirror, and sums are compared with *our* list,
not with what the server says about itself. It is a Range request, a hash and a rename; without heavy imports
it also starts at once. The dataset is public, so there is no log-in.

A file grows as ``<name>.partial``. The files of a dataset get their final names together, when all are
verified: so a folder that holds data files holds the whole dataset, and an interrupted download is continued,
never mistaken for one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Event
from urllib.parse import quote, urlsplit

from lightning_synther.bounds import check_counts
from lightning_synther.data.catalogue import (
    REPOSITORY,
    REVISION,
    RemoteFile,
    check_published,
    endpoint,
    published_files,
)
from lightning_synther.data.transfer import check_sum, fetch, require_reachable, size_of
from lightning_synther.errors import BackendError, ConfigError, DataError

log = logging.getLogger(__name__)


def download(
    task: str,
    policy: str,
    image_size: int = 84,
    root: str = "data/vd4rl",
    mirror: str | None = None,
    revision: str = REVISION,
    checksums: str | None = None,
    verify: bool = False,
    connections: int = 4,
) -> Path:
    """Fetch one V-D4RL dataset, continuing what an earlier run left, and return its folder.

    Files that are there already with the right size are kept as they are.

    Args:
        task: cheetah_run, humanoid_walk or walker_walk.
        policy: random, medium_replay, medium, medium_expert or expert.
        image_size: 84 (HDF5 files) or 64 (one NPZ file per episode).
        root: folder that gets main/<task>/<policy>/<84px|64px>/.
        mirror: base URL of a copy that serves vd4rl/main/...; else the Hugging Face Hub (or HF_ENDPOINT).
        revision: commit of the Hub's dataset repository conglu/vd4rl.
        checksums: another list of path, bytes and sha256 between tabs, in place of the one shipped.
        verify: compare the SHA-256 sums of files that are there already, too.
        connections: files fetched at the same time.

    Raises:
        ConfigError: V-D4RL has no such dataset, or a setting makes no sense.
        SourceUnavailableError: the host does not answer, or refuses a file (a BackendError).
        BackendError: the disk is full; what came so far is kept.
        DataError: a file is not the one the list describes.
    """
    check_published(task, policy, image_size)
    if mirror is not None and urlsplit(mirror).scheme not in ("http", "https"):
        raise ConfigError(
            f"mirror is {mirror!r}, which is not a web address: give one that begins with https://"
        )
    check_counts("", connections=connections)
    folder = f"vd4rl/main/{task}/{policy}/{image_size}px"
    base = (mirror or f"{endpoint()}/datasets/{REPOSITORY}/resolve/{revision}").rstrip("/")
    directory = Path(root) / folder.removeprefix("vd4rl/")
    files = published_files(folder, checksums, mirror, revision)
    _refuse_strangers(directory, files)
    missing = [file for file in files if not _is_complete(directory / file.name, file, verify)]
    if missing:
        _fetch_all(missing, directory, base, connections)
    log.info(
        "%s: %d files, %s, %d of them new", directory, len(files), _megabytes(_total(files)), len(missing)
    )
    return directory


def interrupted_download(directory: Path) -> Path | None:
    """A file in ``directory`` that a download has not finished: what else lies there is a part of the dataset only."""
    partials = sorted(directory.glob("*.partial")) if directory.is_dir() else []
    return next((path for path in partials if Path(path.stem).suffix in (".hdf5", ".npz")), None)


def _fetch_all(files: Sequence[RemoteFile], directory: Path, base: str, connections: int) -> None:
    urls = [f"{base}/{quote(file.path)}" for file in files]
    require_reachable(urls[0])
    directory.mkdir(parents=True, exist_ok=True)
    partials = [directory / f"{file.name}.partial" for file in files]
    _require_space(directory, _total(files) - sum(map(size_of, partials)))
    stop = Event()
    with ThreadPoolExecutor(connections) as pool:
        transfers = [
            pool.submit(fetch, url, partial, file.size, file.sha256, stop)
            for url, partial, file in zip(urls, partials, files, strict=True)
        ]
        try:
            _watch(transfers, partials, _total(files), title=f"{directory.parent.name} {directory.name}")
        finally:
            stop.set()
    for partial in partials:
        partial.replace(partial.with_suffix(""))


def _watch(transfers: Sequence[Future[None]], partials: Sequence[Path], total: int, title: str) -> None:
    """Show one bar of the bytes on disk until every transfer has ended; raises the first one's error."""
    from tqdm import tqdm

    start = sum(map(size_of, partials))
    with tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=title, disable=None) as bar:
        pending: set[Future[None]] = set(transfers)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
            bar.update(sum(map(size_of, partials)) - bar.n)
            for transfer in done:
                transfer.result()


def _is_complete(path: Path, file: RemoteFile, verify: bool) -> bool:
    """Whether ``path`` is there in full; a shorter file, say a broken copy, becomes a part to continue."""
    if not path.exists():
        return False
    size = size_of(path)
    if size < file.size:
        log.warning("%s has %d of %d bytes: continuing it", path, size, file.size)
        path.replace(path.with_name(f"{path.name}.partial"))
        return False
    if size > file.size:
        raise DataError(
            f"{path} has {size} bytes, V-D4RL's file {file.size}: it is another file; "
            "move it away, or give another root"
        )
    if verify:
        check_sum(path, file.sha256, origin="an earlier run")
    return True


def _refuse_strangers(directory: Path, files: Sequence[RemoteFile]) -> None:
    """Official files beside collected ones would silently make a third dataset."""
    known = {file.name for file in files}
    present = sorted(directory.iterdir()) if directory.is_dir() else []
    strangers = [path for path in present if path.suffix in (".hdf5", ".npz") and path.name not in known]
    if strangers:
        raise DataError(
            f"{strangers[0]} is not one of V-D4RL's files: give another root, or move that folder's data away"
        )


def _require_space(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise BackendError(
            f"{directory} needs {_megabytes(needed)} more and its disk has {_megabytes(free)} left: "
            "free some space, or give a root on another disk"
        )


def _total(files: Sequence[RemoteFile]) -> int:
    return sum(file.size for file in files)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
