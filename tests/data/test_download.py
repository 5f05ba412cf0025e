"""Downloads from a real web server on this machine, with the faults that real ones have."""

from __future__ import annotations

import errno
import hashlib
import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from lightning_synther.data import catalogue, transfer
from lightning_synther.data.catalogue import SourceUnavailableError, is_published, read_checksums
from lightning_synther.data.download import download, interrupted_download
from lightning_synther.data.transfer import reachable
from lightning_synther.errors import BackendError, ConfigError, DataError

FOLDER = "vd4rl/main/cheetah_run/medium/84px"


class Host:
    """A web server whose faults the tests switch on; it keeps what it was asked for."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str | None]] = []  # (path, Range header) of every GET
        self.ranges = True  # whether Range headers are honoured
        self.cut: int | None = None  # bytes after which an answer's connection breaks
        self.cuts_left = 0  # how many answers are cut
        self.statuses: list[int] = []  # answered to the next GETs, before anything else
        host = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_HEAD(self):
                self.send_response(200)
                self.end_headers()

            def do_GET(self):
                host.answer(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, asked = handler.path.lstrip("/"), handler.headers.get("Range")
        self.requests.append((path, asked))
        if self.statuses or path not in self.files:
            handler.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        content = self.files[path]
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.ranges else 0
        if start >= len(content) > 0:
            handler.send_error(416)
            return
        handler.send_response(206 if start else 200)
        handler.send_header("Content-Length", str(len(content) - start))
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        handler.end_headers()
        stop = len(content)
        if self.cut is not None and self.cuts_left > 0:
            stop, self.cuts_left = start + self.cut, self.cuts_left - 1
        handler.wfile.write(content[start:stop])


@pytest.fixture
def host(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(transfer, "BACKOFF", 0.01)
    host = Host()
    yield host
    host.server.shutdown()
    host.server.server_close()


@pytest.fixture
def contents(host) -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    contents = {f"{i}_cheetah_run_medium.hdf5": rng.bytes(100_000 + i) for i in range(3)}
    host.files = {f"{FOLDER}/{name}": content for name, content in contents.items()}
    return contents


@pytest.fixture
def fetch(host, contents, tmp_path):
    """``download`` of the host's dataset into tmp_path/data, by a list made from the true contents."""
    rows = [f"{FOLDER}/{name}\t{len(c)}\t{hashlib.sha256(c).hexdigest()}" for name, c in contents.items()]
    checksums = tmp_path / "checksums.tsv"
    checksums.write_text("\n".join(["path\tbytes\tsha256", *rows]) + "\n")

    def fetch(**options):
        options = {"root": str(tmp_path / "data"), "mirror": host.url, "checksums": str(checksums)} | options
        return download("cheetah_run", "medium", **options)

    return fetch


@pytest.fixture
def directory(tmp_path) -> Path:
    return tmp_path / "data/main/cheetah_run/medium/84px"


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def assert_whole(directory: Path, contents: dict[str, bytes]) -> None:
    assert names(directory) == sorted(contents)
    for name, content in contents.items():
        assert (directory / name).read_bytes() == content


def test_files_arrive_in_the_official_layout(fetch, contents, directory):
    assert fetch() == directory
    assert_whole(directory, contents)


def test_complete_files_are_not_asked_for_again(fetch, host, contents, directory):
    fetch()
    host.requests.clear()
    fetch(verify=True)
    assert host.requests == []
    assert_whole(directory, contents)


def test_an_interrupted_download_goes_on_where_it_stopped(fetch, host, contents, directory):
    name, content = next(iter(contents.items()))
    directory.mkdir(parents=True)
    (directory / f"{name}.partial").write_bytes(content[:40_000])
    fetch()
    assert (f"{FOLDER}/{name}", "bytes=40000-") in host.requests
    assert_whole(directory, contents)


def test_a_part_that_was_complete_is_only_verified(fetch, host, contents, directory):
    name, content = next(iter(contents.items()))
    directory.mkdir(parents=True)
    (directory / f"{name}.partial").write_bytes(content)
    fetch()
    assert f"{FOLDER}/{name}" not in [path for path, _ in host.requests]
    assert_whole(directory, contents)


def test_a_truncated_file_under_its_final_name_is_continued(fetch, host, contents, directory):
    name, content = next(iter(contents.items()))
    fetch()
    (directory / name).write_bytes(content[:70_000])
    host.requests.clear()
    fetch()
    assert host.requests == [(f"{FOLDER}/{name}", "bytes=70000-")]
    assert_whole(directory, contents)


def test_broken_connections_are_resumed_within_one_call(fetch, host, contents, directory):
    host.cut, host.cuts_left = 30_000, 6
    fetch(connections=1)
    assert (f"{FOLDER}/0_cheetah_run_medium.hdf5", "bytes=60000-") in host.requests
    assert_whole(directory, contents)


def test_transient_answers_are_tried_again(fetch, host, contents, directory):
    host.statuses = [503, 429, 500]
    fetch(connections=1)
    assert_whole(directory, contents)


def test_a_server_without_ranges_is_read_from_the_start(fetch, host, contents, directory):
    host.ranges, host.cut, host.cuts_left = False, 30_000, 2
    fetch(connections=1)
    assert_whole(directory, contents)


def test_a_transfer_that_always_breaks_off_is_reported_and_kept(fetch, host, directory):
    host.ranges, host.cut, host.cuts_left = False, 30_000, 10**6
    with pytest.raises(SourceUnavailableError, match=r"broke off 5 times at 30000 of 10000\d bytes"):
        fetch()
    assert all(name.endswith(".partial") for name in names(directory))
    host.cut = None
    host.ranges = True
    fetch()
    assert len(names(directory)) == 3


def test_a_wrong_sum_names_the_file_and_both_sums_and_removes_it(fetch, host, contents, directory):
    name, content = "1_cheetah_run_medium.hdf5", contents["1_cheetah_run_medium.hdf5"]
    damaged = content[:-1] + bytes([content[-1] ^ 1])
    host.files[f"{FOLDER}/{name}"] = damaged
    with pytest.raises(DataError, match=f"{name}.*removed; run the same command again") as error:
        fetch()
    assert hashlib.sha256(content).hexdigest() in str(error.value)
    assert hashlib.sha256(damaged).hexdigest() in str(error.value)
    assert (directory / f"{name}.partial").read_bytes() == b"", "the folder still counts as unfinished"
    assert name not in names(directory)
    host.files[f"{FOLDER}/{name}"] = content
    fetch()
    assert_whole(directory, contents)


def test_verify_finds_damage_that_the_size_does_not_show(fetch, contents, directory):
    fetch()
    path = directory / next(iter(contents))
    path.write_bytes(bytes(len(contents[path.name])))
    fetch()
    with pytest.raises(DataError, match=f"{path.name} from an earlier run.*it was removed"):
        fetch(verify=True)
    assert interrupted_download(directory) == path.with_name(f"{path.name}.partial")
    fetch(verify=True)
    assert interrupted_download(directory) is None
    assert_whole(directory, contents)


@pytest.mark.parametrize("change", [-10, 10])
@pytest.mark.parametrize("part", [0, 50_000])
def test_a_host_with_files_of_another_size_is_refused(fetch, host, contents, directory, change, part):
    name, content = "0_cheetah_run_medium.hdf5", contents["0_cheetah_run_medium.hdf5"]
    host.files[f"{FOLDER}/{name}"] = content[:change] if change < 0 else content + bytes(change)
    directory.mkdir(parents=True)
    (directory / f"{name}.partial").write_bytes(content[:part])
    with pytest.raises(
        DataError, match=f"{name} has {100_000 + change} bytes, the checksum list says 100000"
    ):
        fetch()


def test_a_part_longer_than_the_file_is_started_anew(fetch, contents, directory):
    directory.mkdir(parents=True)
    (directory / "0_cheetah_run_medium.hdf5.partial").write_bytes(bytes(200_000))
    fetch()
    assert_whole(directory, contents)


def test_a_missing_file_is_reported_at_once(fetch, host):
    del host.files[f"{FOLDER}/0_cheetah_run_medium.hdf5"]
    with pytest.raises(SourceUnavailableError, match=r"0_cheetah_run_medium\.hdf5 answers 404"):
        fetch()
    assert sum(path.endswith("0_cheetah_run_medium.hdf5") for path, _ in host.requests) == 1


def test_an_unreachable_host_fails_fast_and_says_what_helps(fetch, tmp_path):
    with socket.socket() as bound:  # a port that is taken, but at which nobody listens
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        began = time.perf_counter()
        with pytest.raises(BackendError, match=f"{url}/.* cannot be reached .*another mirror.*`collect`"):
            fetch(mirror=url)
        assert not reachable(url)
    assert time.perf_counter() - began < 5
    assert not (tmp_path / "data").exists()


def test_a_host_that_never_answers_costs_the_timeout_only(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        began = time.perf_counter()
        assert not reachable(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2)
        assert time.perf_counter() - began < 1


def test_reachable_takes_any_answer(host):
    assert reachable(host.url)


def test_a_full_disk_is_one_sentence_and_keeps_the_part(fetch, contents, directory, monkeypatch):
    directory.mkdir(parents=True)
    kept = directory / "0_cheetah_run_medium.hdf5.partial"
    kept.write_bytes(contents["0_cheetah_run_medium.hdf5"][:40_000])
    opened = Path.open

    def full(path, mode="r", *args, **kwargs):
        stream = opened(path, mode, *args, **kwargs)
        if path != kept or "r" in mode:
            return stream
        broken = mock.MagicMock(wraps=stream)
        broken.__enter__.return_value = broken
        broken.__exit__.side_effect = lambda *_: stream.close()
        broken.write.side_effect = OSError(errno.ENOSPC, "No space left on device")
        return broken

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(
            BackendError, match=r"disk is full while writing .*0_cheetah_run_medium.hdf5.partial: free"
        ):
            fetch()
    assert kept.stat().st_size == 40_000
    fetch()
    assert_whole(directory, contents)


def test_too_little_space_is_found_before_the_first_byte(fetch, host, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: mock.Mock(free=1000))
    with pytest.raises(BackendError, match=r"needs 0\.3 MB more and its disk has 0\.0 MB left"):
        fetch()
    assert host.requests == []


def test_ctrl_c_keeps_the_parts(fetch, host, contents, directory, monkeypatch):
    host.cut, host.cuts_left = 30_000, 10**6
    monkeypatch.setattr(transfer, "BACKOFF", 60)  # the workers must wake from it
    host.ranges = False

    def interrupt(transfers, partials, total, title):
        while not all(path.exists() and path.stat().st_size for path in partials):
            time.sleep(0.01)
        raise KeyboardInterrupt

    began = time.perf_counter()
    monkeypatch.setattr("lightning_synther.data.download._watch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch()
    assert time.perf_counter() - began < 10
    assert names(directory) == [f"{name}.partial" for name in sorted(contents)]


def test_collected_data_is_never_mixed_with_the_official(fetch, directory):
    directory.mkdir(parents=True)
    (directory / "episode_000000.hdf5").write_bytes(b"mine")
    with pytest.raises(
        DataError, match=r"episode_000000.hdf5 is not one of V-D4RL's files: give another root"
    ):
        fetch()


def test_a_larger_file_under_an_official_name_is_left_alone(fetch, directory):
    directory.mkdir(parents=True)
    mine = directory / "0_cheetah_run_medium.hdf5"
    mine.write_bytes(bytes(200_000))
    with pytest.raises(DataError, match="has 200000 bytes, V-D4RL's file 100000"):
        fetch()
    assert mine.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "cheetah_rum"}, "cheetah_run, humanoid_walk, walker_walk; did you mean cheetah_run"),
        ({"policy": "bad"}, "unknown V-D4RL policy 'bad': there are random, medium_replay"),
        ({"image_size": 32}, "image_size is 32, but V-D4RL is published at 64 and 84"),
        ({"mirror": "/some/folder"}, "not a web address"),
        ({"connections": 0}, "connections is 0"),
        (
            {"image_size": 64, "mirror": "http://127.0.0.1"},
            "has no file of vd4rl/main/cheetah_run/medium/64px",
        ),
    ],
)
def test_settings_that_cannot_be_honoured(tmp_path, arguments, message):
    settings = {"task": "cheetah_run", "policy": "medium", "root": str(tmp_path)}
    with pytest.raises(ConfigError, match=message):
        download(**(settings | arguments))


def test_a_dataset_outside_the_list_is_described_by_the_hub(host, tmp_path, monkeypatch):
    """64 px: the Hub's tree API gives names, sizes and sums; the files come from its resolve address."""
    monkeypatch.setenv("HF_ENDPOINT", host.url)
    folder, content = "vd4rl/main/cheetah_run/medium/64px", b"one episode"
    lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    listing = [
        {"type": "file", "oid": "0" * 40, "size": len(content), "path": f"{folder}/a-501.npz", "lfs": lfs}
    ]
    repository = f"datasets/conglu/vd4rl/{{}}/{catalogue.REVISION}/{folder}"
    host.files = {
        "api/" + repository.format("tree"): json.dumps(listing).encode(),
        repository.format("resolve") + "/a-501.npz": content,
    }
    directory = download("cheetah_run", "medium", image_size=64, root=str(tmp_path))
    assert (directory / "a-501.npz").read_bytes() == content
    host.files.clear()
    with pytest.raises(SourceUnavailableError, match="does not list the dataset's files"):
        download("cheetah_run", "expert", image_size=64, root=str(tmp_path))


def test_the_shipped_list_is_whole():
    files = read_checksums()
    assert len(files) == 82
    assert sum(file.size for file in files) == 13_319_054_179
    folders = {file.path.rpartition("/")[0] for file in files}
    for folder in folders:
        _, _, task, policy, size = folder.split("/")
        assert is_published(task, policy, int(size.removesuffix("px")))
    sums = {folder: {f.sha256 for f in files if f.path.startswith(folder + "/")} for folder in folders}
    for task in (
        "cheetah_run",
        "humanoid_walk",
    ):  # V-D4RL's medium_expert is the two others' files side by side
        medium, expert, both = (f"vd4rl/main/{task}/{p}/84px" for p in ("medium", "expert", "medium_expert"))
        assert sums[both] == sums[medium] | sums[expert]


@pytest.mark.parametrize(
    "line", ["a/b\tten\t" + "0" * 64, "a/b\t10", "a/\t10\t" + "0" * 64, "a/b\t10\tshort"]
)
def test_a_damaged_list_names_the_line(tmp_path, line):
    path = tmp_path / "list.tsv"
    path.write_text("path\tbytes\tsha256\n" + line + "\n")
    with pytest.raises(DataError, match=r"line 2 of the checksum list .*list\.tsv"):
        read_checksums(str(path))
    with pytest.raises(DataError, match="cannot be read"):
        read_checksums(str(tmp_path / "none.tsv"))
