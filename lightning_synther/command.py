"""The frame around every command: how a failure leaves the process.

A user's mistake is one sentence on standard error and exit status 1; Ctrl-C is status 130; a defect of the
package keeps its traceback. ``LIGHTNING_SYNTHER_TRACEBACK=1`` shows the traceback of users' mistakes too.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

from lightning_synther.errors import ConfigError, SyntherError

INTERRUPTED = 130  # the shell's convention: 128 + SIGINT
MAX_SENTENCE = 600  # characters of an argument parser's message; a class's own parse errors run to pages
FULL = (errno.ENOSPC, errno.EDQUOT)
#: What may be wrong with a path that the user gave, and how to say it.
UNUSABLE: dict[type[OSError], str] = {
    NotADirectoryError: "a part of it is a file, not a folder",
    FileExistsError: "something else is there already",
    IsADirectoryError: "it is a folder, not a file",
    PermissionError: "permission denied",
}


def run_command(function: Callable[..., object], *args: Any, **kwargs: Any) -> int:
    """Call ``function(*args, **kwargs)`` and return the exit status of the process.

    0 when it returns, 130 after Ctrl-C, 1 with one ``error:`` sentence for a `SyntherError`, an argument that
    does not parse, a full disk, or a path that cannot be one. Any other exception passes through.
    """
    try:
        function(*args, **kwargs)
    except SystemExit as stop:
        return _status(stop)
    except KeyboardInterrupt:
        return _interrupted()
    except (SyntherError, argparse.ArgumentError) as error:
        return _report(str(error) if isinstance(error, SyntherError) else parse_error(error))
    except Exception as error:
        sentence = _outside_cause(error)
        if sentence is None:
            raise
        return _report(sentence)
    return 0


def _outside_cause(error: Exception) -> str | None:
    """What is wrong with the disk or a path that the user gave; None for any other error."""
    if disk_is_full(error):
        return f"the disk is full ({first_line(error)}): free some space and run the same command again"
    reason = UNUSABLE.get(type(error)) if isinstance(error, OSError) else None
    path = (error.filename2 or error.filename) if isinstance(error, OSError) else None
    if reason is None or not isinstance(path, str | bytes | os.PathLike):
        return None
    return f"cannot read or write {os.fsdecode(path)} ({reason}): give another path"


def parse_error(error: argparse.ArgumentError, options: tuple[str, ...] = ()) -> str:
    """One sentence out of a parser's message; a misspelt one of ``options`` is met with its close match."""
    message = " ".join(str(error).split())
    message = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", message).replace("typing.", "")
    message = re.sub(r'^Parser key "([\w.-]+)":', r"--\1:", message)
    message = re.sub(r"Expected an? (.*?)\. Got value: ", r"expected \1, got ", message)
    unknown = re.match(r"unrecognized arguments: (--[\w.-]+)", message, re.IGNORECASE)
    close = get_close_matches(unknown[1], options, n=1) if unknown else []
    if close:
        message += f"; did you mean {close[0]}?"
    return message if len(message) <= MAX_SENTENCE else message[:MAX_SENTENCE] + " …"


def close_match(word: str, known: tuple[str, ...], what: str) -> ConfigError:
    """The error for a ``word`` that is none of the ``known`` ones; ``what`` names the kind of thing it is."""
    close = get_close_matches(word, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return ConfigError(f"unknown {what} {word!r}: there are {', '.join(known)}{hint}")


def disk_is_full(error: BaseException) -> bool:
    """Whether ``error``, or what it was raised from, is a full disk or a spent quota.

    HDF5 and torch wrap the operating system's error in their own, HDF5 without its number.
    """
    return any(
        isinstance(cause, OSError) and (cause.errno in FULL or os.strerror(errno.ENOSPC) in str(cause))
        for cause in _causes(error)
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(stop: SystemExit) -> int:
    if any(isinstance(cause, KeyboardInterrupt) for cause in _causes(stop)):
        return _interrupted()  # a Trainer turns Ctrl-C into sys.exit(1) after its graceful shutdown
    if stop.code is None or isinstance(stop.code, int):
        return 1 if stop.code else 0  # argparse says 2 for a usage error; here every mistake is 1
    return _report(str(stop.code))


def _interrupted() -> int:
    print("\ninterrupted: run the same command again to continue", file=sys.stderr)
    return INTERRUPTED


def _report(sentence: str) -> int:
    if os.environ.get("LIGHTNING_SYNTHER_TRACEBACK", "0") not in ("", "0"):
        traceback.print_exc()
    print(f"error: {sentence}", file=sys.stderr)
    return 1


def first_line(error: BaseException) -> str:
    """The first line of its message, or its kind where it has none."""
    return (str(error).splitlines() or [type(error).__name__])[0]
