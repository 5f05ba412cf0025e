"""Fetch V-D4RL's files, each checked by size and SHA-256, into the official layout.

Own HTTP code on the standard library rather than huggingface_hub: files go straight into the official layout instead
of a cache, any web server can be the mirror, and the sums are checked against *our* list, not against what the server
says about itself. It is a Range request, a hash and a rename; importing nothing heavy, it also starts at once.

A file grows as ``<name>.partial``. The files of a dataset get their final names together, when all are verified: so a
folder that holds data files holds the whole dataset, and an interrupted download is continued, never mistaken for one.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from http.client import HTTPException
from pathlib import Path
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit
from urllib.request import Request, urlopen

from lightning_synther.command import disk_is_full
from lightning_synther.data.catalogue import (
    HEADERS,
    REPOSITORY,
    REVISION,
    RemoteFile,
    SourceUnavailableError,
    check_published,
    endpoint,
    published_files,
)
from lightning_synther.errors import BackendError, ConfigError, DataError

log = logging.getLogger(__name__)

ATTEMPTS = 5  # in a row without a new byte; the pauses between them are 1, 2, 4, 8 times BACKOFF
BACKOFF = 1.0  # seconds
CONNECT_TIMEOUT = 5.0  # seconds until the host counts as unreachable
READ_TIMEOUT = 20.0  # seconds without a byte
CHUNK = 1 << 18
TRANSIENT_STATUS = (408, 416, 425, 429, 500, 502, 503, 504)


def download(
    task: str,
    policy: str,
    image_size: int = 84,
    root: str = "data",
    mirror: str | None = None,
    revision: str = REVISION,
    checksums: str | None = None,
    verify: bool = False,
    connections: int = 4,
) -> Path:
    """Fetch one V-D4RL dataset, resuming what an earlier run left, and return its folder.

    Files that are there already with the right size are kept as they are.

    Args:
        task: cheetah_run, humanoid_walk or walker_walk.
        policy: random, medium_replay, medium, medium_expert or expert.
        image_size: 84 (HDF5 files) or 64 (one NPZ file per episode).
        root: folder that gets main/<task>/<policy>/<84px|64px>/.
        mirror: base URL of a copy that serves vd4rl/main/...; without it the Hugging Face Hub (or HF_ENDPOINT).
        revision: commit of the Hub's dataset repository conglu/vd4rl.
        checksums: another list of path, bytes and sha256 between tabs, in place of the one shipped.
        verify: compare the SHA-256 sums of files that are there already, too.
        connections: files fetched at the same time.

    Raises:
        ConfigError: V-D4RL has no such dataset, or a setting makes no sense.
        SourceUnavailableError: the host does not answer, or refuses a file (a BackendError).
        BackendError: the disk is full; what came so far is kept.
        DataError: a file is not the one the list describes; it is removed.
    """
    check_published(task, policy, image_size)
    if mirror is not None and urlsplit(mirror).scheme not in ("http", "https"):
        raise ConfigError(f"mirror is {mirror!r}, which is not a web address: give one that begins with https://")
    if connections < 1:
        raise ConfigError(f"connections is {connections}: give at least 1")
    folder = f"vd4rl/main/{task}/{policy}/{image_size}px"
    base = (mirror or f"{endpoint()}/datasets/{REPOSITORY}/resolve/{revision}").rstrip("/")
    directory = Path(root) / folder.removeprefix("vd4rl/")
    files = published_files(folder, checksums, mirror, revision)
    _refuse_strangers(directory, files)
    missing = [file for file in files if not _is_complete(directory / file.name, file, verify)]
    if missing:
        _fetch_all(missing, directory, base, connections)
    log.info("%s: %d files, %s, verified", directory, len(files), _megabytes(sum(f.size for f in files)))
    return directory


def reachable(url: str, timeout: float = CONNECT_TIMEOUT) -> bool:
    """Whether a web server answers at ``url`` within ``timeout`` seconds, name resolution included."""
    return _obstacle(url, timeout) is None


def _obstacle(url: str, timeout: float) -> str | None:
    """Why nothing answers at ``url``, or None; in a thread because resolving a name knows no timeout."""
    answer: list[str | None] = []

    def knock() -> None:
        try:
            urlopen(Request(url, headers=HEADERS, method="HEAD"), timeout=timeout).close()
            answer.append(None)
        except HTTPError:  # an answer, if not a friendly one: the request proper will say which
            answer.append(None)
        except (OSError, HTTPException, ValueError) as error:
            answer.append(str(getattr(error, "reason", error)))

    thread = Thread(target=knock, daemon=True)
    thread.start()
    thread.join(timeout)
    return answer[0] if answer else f"no answer within {timeout:g} s"


def _fetch_all(files: Sequence[RemoteFile], directory: Path, base: str, connections: int) -> None:
    url = _url(base, files[0])
    if obstacle := _obstacle(url, CONNECT_TIMEOUT):
        raise SourceUnavailableError(
            f"{url} cannot be reached ({obstacle}): give a folder that has the data as --root, another host as "
            "--mirror, or make data with `collect`"
        )
    directory.mkdir(parents=True, exist_ok=True)
    partials = [directory / f"{file.name}.partial" for file in files]
    _require_space(files, partials, directory)
    stop = Event()
    with ThreadPoolExecutor(connections) as pool:
        transfers = [
            pool.submit(_fetch, file, partial, base, stop) for file, partial in zip(files, partials, strict=True)
        ]
        try:
            _watch(transfers, partials, sum(file.size for file in files), directory)
        finally:
            stop.set()
    for file, partial in zip(files, partials, strict=True):
        partial.replace(directory / file.name)


def _watch(transfers: Sequence[Future[None]], partials: Sequence[Path], total: int, directory: Path) -> None:
    """Show one bar of the bytes on disk until every transfer has ended; raises the first one's error."""
    from tqdm import tqdm

    options = {"unit": "B", "unit_scale": True, "disable": None, "desc": "/".join(directory.parts[-3:])}
    with tqdm(total=total, initial=sum(map(_size, partials)), **options) as bar:
        pending: set[Future[None]] = set(transfers)
        while pending:
            done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
            bar.update(sum(map(_size, partials)) - bar.n)
            for transfer in done:
                transfer.result()


def _fetch(file: RemoteFile, partial: Path, base: str, stop: Event) -> None:
    """Bring ``partial`` to the listed size, however often the connection breaks, and check its sum."""
    url = _url(base, file)
    longest, failures = _size(partial), 0
    while not stop.is_set() and (_size(partial) != file.size or not partial.exists()):
        try:
            _transfer(url, file, partial, stop)
            problem = "the connection ended early"
        except HTTPError as error:
            if error.code not in TRANSIENT_STATUS:
                raise SourceUnavailableError(
                    f"{url} answers {error.code} {error.reason}: check --mirror and --revision, "
                    "or make data with `collect`"
                ) from error
            problem = f"{error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            if disk_is_full(error):
                raise BackendError(
                    f"the disk is full while writing {partial}: free {_megabytes(file.size - _size(partial))} "
                    "and run the same command again, which continues this file"
                ) from error
            problem = str(getattr(error, "reason", error)) or type(error).__name__
        failures = 0 if _size(partial) > longest else failures + 1
        longest = max(longest, _size(partial))
        if failures >= ATTEMPTS:
            raise SourceUnavailableError(
                f"{url} broke off {ATTEMPTS} times at {longest} of {file.size} bytes ({problem}): "
                "run the same command again to continue, or give another --mirror"
            )
        if failures:
            stop.wait(BACKOFF * 2 ** (failures - 1))
    if not stop.is_set():
        _check_sum(partial, file, url)


def _transfer(url: str, file: RemoteFile, partial: Path, stop: Event) -> None:
    """One request: append what the server still has to give to ``partial``, from the start if it must."""
    have = _size(partial)
    if have > file.size:
        partial.unlink()
        have = 0
    headers = HEADERS | ({"Range": f"bytes={have}-"} if have else {})
    try:
        response = urlopen(Request(url, headers=headers), timeout=READ_TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # the server's file ends before our part of it: ours is of another version
            partial.unlink(missing_ok=True)
        raise
    with response:
        resumed = response.status == 206
        offered = response.headers.get("Content-Range", "").rpartition("/")[2] if resumed else response.length
        if str(offered).isdecimal() and int(offered) != file.size:
            raise DataError(
                f"{url} has {offered} bytes, the checksum list says {file.size}: "
                "this host serves another version; give another --mirror or --revision"
            )
        with partial.open("ab" if resumed else "wb") as out:
            while not stop.is_set() and have <= file.size and (chunk := response.read1(CHUNK)):
                out.write(chunk)


def _check_sum(path: Path, file: RemoteFile, origin: str) -> None:
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        path.unlink()
        raise DataError(
            f"{path} from {origin} has the SHA-256 sum {found}, the checksum list says {file.sha256}: it was removed; "
            "run the same command again, and if that does not help give another --mirror"
        )


def _is_complete(path: Path, file: RemoteFile, verify: bool) -> bool:
    """Whether ``path`` is there in full; a shorter one, say from a broken copy, becomes a part to continue."""
    if not path.exists():
        return False
    size = path.stat().st_size
    if size < file.size:
        log.warning("%s has %d of %d bytes: continuing it", path, size, file.size)
        path.replace(path.with_name(f"{path.name}.partial"))
        return False
    if size > file.size:
        raise DataError(
            f"{path} has {size} bytes, V-D4RL's file {file.size}: it is another file; "
            "move it away, or give another --root"
        )
    if verify:
        _check_sum(path, file, "an earlier run")
    return True


def _refuse_strangers(directory: Path, files: Sequence[RemoteFile]) -> None:
    """Official files beside collected ones would silently make a third dataset."""
    known = {file.name for file in files}
    present = sorted(directory.iterdir()) if directory.is_dir() else []
    strangers = [path for path in present if path.suffix in (".hdf5", ".npz") and path.name not in known]
    if strangers:
        raise DataError(
            f"{strangers[0]} is not one of V-D4RL's files: give another --root, or move the folder's data away"
        )


def _require_space(files: Sequence[RemoteFile], partials: Sequence[Path], directory: Path) -> None:
    needed = sum(file.size for file in files) - sum(map(_size, partials))
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise BackendError(
            f"{directory} needs {_megabytes(needed)} more and its disk has {_megabytes(free)} left: "
            "free some space, or give a --root on another disk"
        )


def _url(base: str, file: RemoteFile) -> str:
    return f"{base}/{quote(file.path)}"


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
