"""One file over HTTP: resumed by Range requests, retried when the line breaks, checked by size and sum."""

from __future__ import annotations

import hashlib
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from threading import Event, Thread
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from lightning_synther import __version__
from lightning_synther.command import disk_is_full
from lightning_synther.errors import BackendError, DataError

ATTEMPTS = 5  # in a row without a new byte
BACKOFF = 1.0  # seconds of the first pause between two attempts; each further one is twice as long
CONNECT_TIMEOUT = 5.0  # seconds until a host counts as unreachable
READ_TIMEOUT = 20.0  # seconds without a byte
CHUNK = 1 << 18
TRANSIENT_STATUS = (408, 416, 425, 429, 500, 502, 503, 504)
HEADERS = {"User-Agent": f"lightning-synther/{__version__}"}


class SourceUnavailableError(BackendError):
    """The host of a download does not answer, or refuses the file: the data has to come from elsewhere."""


def reachable(url: str, timeout: float = CONNECT_TIMEOUT) -> bool:
    """Whether a web server answers at ``url`` within ``timeout`` seconds, name resolution included."""
    return obstacle(url, timeout) is None


def obstacle(url: str, timeout: float = CONNECT_TIMEOUT) -> str | None:
    """Why nothing answers at ``url``, or None; asked in a thread, as resolving a name knows no timeout."""
    answer: list[str | None] = []

    def knock() -> None:
        try:
            urlopen(Request(url, headers=HEADERS, method="HEAD"), timeout=timeout).close()
            answer.append(None)
        except HTTPError:  # an answer, if not a friendly one: the transfer itself will say which
            answer.append(None)
        except (OSError, HTTPException, ValueError) as error:
            answer.append(_reason(error))

    thread = Thread(target=knock, daemon=True)
    thread.start()
    thread.join(timeout)
    return answer[0] if answer else f"no answer within {timeout:g} s"


def require_reachable(url: str) -> None:
    """Raise `SourceUnavailableError` within seconds when nothing answers at ``url``."""
    if reason := obstacle(url):
        raise SourceUnavailableError(
            f"{url} cannot be reached ({reason}): give a root folder that has the data, another mirror, "
            "or make data with `collect`"
        )


def fetch(url: str, partial: Path, size: int, sha256: str, stop: Event) -> None:
    """Bring ``partial`` to ``size`` bytes with the sum ``sha256``, continuing from what it holds already.

    Returns early when ``stop`` is set, with what came so far on disk.

    Raises:
        SourceUnavailableError: the host refuses the file, or broke off `ATTEMPTS` times without a new byte.
        BackendError: the disk is full; ``partial`` is kept.
        DataError: the host has a file of another size, or the sum is wrong and ``partial`` was emptied.
    """
    longest, failures = size_of(partial), 0
    while not stop.is_set() and not (partial.exists() and size_of(partial) == size):
        problem = _attempt(url, partial, size, stop)
        # Without Range support every attempt starts anew: only bytes beyond the best one so far are progress.
        failures = 0 if size_of(partial) > longest else failures + 1
        longest = max(longest, size_of(partial))
        if failures >= ATTEMPTS:
            raise SourceUnavailableError(
                f"{url} broke off {ATTEMPTS} times at {longest} of {size} bytes ({problem}): "
                "run the same command again to continue, or give another mirror"
            )
        if failures:
            stop.wait(BACKOFF * 2 ** (failures - 1))
    if not stop.is_set():
        check_sum(partial, sha256, url)


def check_sum(path: Path, sha256: str, origin: str) -> None:
    """Raise `DataError` unless the SHA-256 sum of ``path`` is ``sha256``, and leave an empty part in its place, so
    that its folder is not taken for a whole dataset.
    """
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        path.unlink()
        (path if path.suffix == ".partial" else path.with_name(f"{path.name}.partial")).touch()
        raise DataError(
            f"{path} from {origin} has the SHA-256 sum {found}, the checksum list says {sha256}: "
            "it was removed; run the same command again, and if that does not help give another mirror"
        )


def size_of(path: Path) -> int:
    """Bytes of a file, 0 for one that is not there."""
    return path.stat().st_size if path.exists() else 0


def _attempt(url: str, partial: Path, size: int, stop: Event) -> str:
    """One request; returns what ended it, raises what another request cannot mend."""
    try:
        _receive(url, partial, size, stop)
    except HTTPError as error:
        if (
            error.code == 416
        ):  # the server's file ends before our part of it, which is of another version then
            partial.unlink(missing_ok=True)
        if error.code not in TRANSIENT_STATUS:
            raise SourceUnavailableError(
                f"{url} answers {error.code} {error.reason}: check the mirror and the revision, "
                "or make data with `collect`"
            ) from error
        return f"{error.code} {error.reason}"
    except (OSError, HTTPException) as error:
        if disk_is_full(error):
            raise BackendError(
                f"the disk is full while writing {partial}: free {(size - size_of(partial)) / 1e6:,.1f} MB "
                "and run the same command again, which continues this file"
            ) from error
        if isinstance(error, (PermissionError, IsADirectoryError)):
            raise
        return _reason(error)
    return "the connection ended early"


def _receive(url: str, partial: Path, size: int, stop: Event) -> None:
    """Append what ``partial`` lacks; a server that knows no ranges sends the file from its start."""
    have = size_of(partial)
    if have > size:
        have = 0
    ranged = {"Range": f"bytes={have}-"} if have else {}
    with urlopen(Request(url, headers=HEADERS | ranged), timeout=READ_TIMEOUT) as response:
        _check_offer(response, url, size)
        resumed = response.status == 206
        received = have if resumed else 0
        with partial.open("ab" if resumed else "wb") as out:
            while received <= size and not stop.is_set() and (chunk := response.read1(CHUNK)):
                received += out.write(chunk)


def _check_offer(response: HTTPResponse, url: str, size: int) -> None:
    if response.status == 206:
        offered = response.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        offered = response.headers.get("Content-Length", "")
    if offered.isdecimal() and int(offered) != size:
        raise DataError(
            f"{url} has {offered} bytes, the checksum list says {size}: this host serves another version; "
            "give another mirror or revision"
        )


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__
