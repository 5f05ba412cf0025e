"""A Python process of its own that hosts one object and serves calls to it.

A fresh interpreter rather than `multiprocessing`'s spawn: that one imports the caller's main module again, so
a training script would load torch in every worker and need an ``if __name__ == "__main__"`` guard. The
process holds nothing but one end of a socket: it ends when the parent closes the other end or dies, by
whatever signal.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

from lightning_synther.errors import BackendError, SyntherError

_COMMAND = "from lightning_synther.envs.worker import serve; serve({})"
_serving = False


def in_worker() -> bool:
    """Whether this process is a `WorkerProcess`: it hosts its object, and will never load torch."""
    return _serving


class LocalWorker:
    """The interface of `WorkerProcess` without a process: calls run at once, in the caller."""

    def __init__(self, factory: Callable[..., Any], *args: Any) -> None:
        self._host = factory(*args)
        self._results: list[Any] = []

    @property
    def ready(self) -> bool:
        """Whether a result waits to be received."""
        return bool(self._results)

    def send(self, method: str, *args: Any) -> None:
        """Call ``method`` of the hosted object."""
        self._results.append(getattr(self._host, method)(*args))

    def receive(self) -> Any:
        """Result of the oldest call that was not yet received."""
        return self._results.pop(0)

    def close(self) -> None:
        """Let the hosted object free what it holds."""
        self._host.close()


class WorkerProcess:
    """Hosts ``factory(*args)`` in another process; every `send` is answered by one `receive`, in order.

    ``factory`` must be importable by name and should import only what it needs, the process starts with
    nothing. The constructor does not wait, so several workers start at the same time.
    """

    def __init__(self, factory: Callable[..., Any], *args: Any) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _COMMAND.format(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                process_group=0,  # Ctrl-C in a terminal reaches the parent alone, which closes the workers
            )
        self._connection = Connection(ours.detach())
        self._connection.send((factory, args))

    @property
    def ready(self) -> bool:
        """Whether a result, or the news that the process ended, waits to be received."""
        return self._connection.closed or self._connection.poll()

    @property
    def connection(self) -> Connection:
        """Readable when `ready`; for `multiprocessing.connection.wait`."""
        return self._connection

    def send(self, method: str, *args: Any) -> None:
        """Ask for ``method`` of the hosted object."""
        try:
            self._connection.send((method, args))
        except OSError:
            raise self._ended() from None

    def receive(self) -> Any:
        """Result of the oldest call that was not yet received.

        Raises the hosted object's own `SyntherError`, and `BackendError` for any other exception there (its
        traceback is attached as a note) or where the process ended.
        """
        try:
            result, error = self._connection.recv()
        except (EOFError, OSError):
            raise self._ended() from None
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """End the process; at most two seconds are spent on letting it finish what it does."""
        self._connection.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ended(self) -> BackendError:
        try:
            status = self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            status = None
        cause = f"was killed by signal {-status}" if status and status < 0 else f"ended with status {status}"
        return BackendError(
            f"a worker process {cause} before it answered: see its messages above; "
            f"where memory ran out, use fewer workers or environments"
        )


Worker = WorkerProcess | LocalWorker


def start_workers(count: int, factory: Callable[..., Any], *args: Any) -> list[Worker]:
    """``count`` processes that each host ``factory(*args)``; with 0, the calling process hosts one."""
    if count == 0:
        return [LocalWorker(factory, *args)]
    return [WorkerProcess(factory, *args) for _ in range(count)]


def wait_for_any(workers: Sequence[Worker]) -> list[Worker]:
    """Sleep until at least one of ``workers`` has a result; all those that have."""
    ready = [worker for worker in workers if worker.ready]
    if not ready:
        wait([worker.connection for worker in workers if isinstance(worker, WorkerProcess)])
        ready = [worker for worker in workers if worker.ready]
    return ready


def serve(descriptor: int) -> None:
    """Main function of the process: build the object, then answer calls until the other end closes."""
    global _serving
    _serving = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = Connection(descriptor)
    try:
        factory, args = connection.recv()
        host, broken = None, None
        try:
            host = factory(*args)
        except Exception as error:
            broken = _portable(error)
        while True:
            method, args = connection.recv()
            connection.send((None, broken) if broken else _answer(host, method, args))
    except (EOFError, OSError):
        os._exit(0)  # without the interpreter's farewell: OpenGL's clean-up at exit is slow and may complain


def _answer(host: Any, method: str, args: tuple[Any, ...]) -> tuple[Any, SyntherError | None]:
    try:
        return getattr(host, method)(*args), None
    except Exception as error:
        return None, _portable(error)


def _portable(error: Exception) -> SyntherError:
    if isinstance(error, SyntherError):
        return error
    portable = BackendError(f"a worker process failed with {type(error).__name__}: {error}")
    portable.add_note("".join(traceback.format_exception(error)))
    return portable
