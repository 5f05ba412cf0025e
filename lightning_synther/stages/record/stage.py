"""What a run directory remembers of each stage: its inputs, whether it finished, what it measured.

A stage is *finished* (reused), *interrupted* or *extended* (resumed) or *stale* (rebuilt) by comparing the
inputs it was started with to the inputs it has now. Inputs hold the stage's own settings and the fingerprints
of what it reads, so a change travels down the chain.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from lightning_synther.errors import DataError

Status = Literal["new", "finished", "interrupted", "extended", "stale"]


def flatten_inputs(inputs: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted keys, so that a difference can be named.

    >>> flatten_inputs({"model": {"width": 512}, "seed": 0})
    {'model.width': 512, 'seed': 0}
    """
    flat: dict[str, Any] = {}
    for key, value in inputs.items():
        if isinstance(value, Mapping):
            flat.update(flatten_inputs(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write atomically: a killed run leaves the old file or the new one, never half of one."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; `DataError` names a file that is damaged."""
    try:
        content = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is damaged ({error}): delete its folder to rebuild that stage") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} does not hold a JSON object: delete its folder to rebuild that stage")
    return content


class Stage:
    """One stage of a run: ``<run>/<name>/`` with its artefacts and ``stage.json``.

    Parameters
    ----------
    run_dir: the run directory.
    name: the stage's folder in it.
    inputs: settings and fingerprints that determine the result; plain types.
    length: the input that counts the updates of a training which goes on, when there are more of them, as if
        there had been so many from the start.
    """

    def __init__(
        self, run_dir: Path, name: str, inputs: Mapping[str, Any], length: str | None = None
    ) -> None:
        self.name, self.length = name, length
        self.directory = run_dir / name
        self.inputs: dict[str, Any] = json.loads(json.dumps(flatten_inputs(inputs)))
        self._path = self.directory / "stage.json"

    @property
    def fingerprint(self) -> str:
        """Hash of the inputs."""
        text = json.dumps(self.inputs, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    @property
    def last_checkpoint(self) -> Path | None:
        """Where an interrupted training goes on from."""
        path = self.directory / "last.ckpt"
        return path if path.exists() else None

    @property
    def final_checkpoint(self) -> Path:
        """The trained module."""
        return self.directory / "final.ckpt"

    def _record(self) -> dict[str, Any]:
        return read_json(self._path) if self._path.exists() else {}

    @property
    def status(self) -> Status:
        """Compare with the record on disk."""
        record = self._record()
        if not record:
            return "new"
        if record["inputs"] == self.inputs:
            return "finished" if record["finished"] else "interrupted"
        return "extended" if self._extends(record["inputs"]) else "stale"

    def _extends(self, old: Mapping[str, Any]) -> bool:
        """Whether a longer training is all that is new, and there is a checkpoint to go on from."""
        if self.length is None or self.last_checkpoint is None or self.length not in old:
            return False
        same = {**old, self.length: self.inputs[self.length]} == self.inputs
        return same and bool(self.inputs[self.length] > old[self.length])

    def changes(self) -> list[str]:
        """What differs from the inputs that the folder was made with, as ``key: old -> new``."""
        old = self._record().get("inputs", {})
        keys = sorted(set(old) | set(self.inputs))
        return [
            f"{key}: {old.get(key, 'unset')} -> {self.inputs.get(key, 'unset')}"
            for key in keys
            if old.get(key) != self.inputs.get(key)
        ]

    @property
    def results(self) -> dict[str, Any]:
        """What the finished stage measured."""
        results = self._record().get("results", {})
        assert isinstance(results, dict)
        return results

    @property
    def seconds(self) -> float:
        """Time spent in this stage, over all interrupted attempts that could still write it down."""
        return float(self._record().get("seconds", 0.0))

    def discard(self) -> None:
        """Remove the folder of a stale stage."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def begin(self) -> None:
        """Write the record of a stage that starts (or goes on)."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._write(finished=False, seconds=self.seconds, results=self.results)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Mark the stage finished; from here on it is reused."""
        self._write(finished=True, seconds=self.seconds, results=results)

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Add the time spent inside to the record, also when it ends by an exception."""
        start = time.monotonic()
        try:
            yield
        finally:
            record = self._record()
            if record:
                record["seconds"] = record["seconds"] + time.monotonic() - start
                write_json(self._path, record)

    def _write(self, *, finished: bool, seconds: float, results: Mapping[str, Any]) -> None:
        record = {"inputs": self.inputs, "finished": finished, "seconds": seconds, "results": dict(results)}
        write_json(self._path, record)
