import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from lightning_synther.data.store import StoreMetadata, TransitionStore, partial_path
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.errors import BackendError, ConfigError, DataError
from lightning_synther.transition import TransitionSpec

SPEC = TransitionSpec(observation_dim=3, action_dim=2, discount=0.97)
ROWS = np.random.default_rng(0).standard_normal((25, SPEC.dim), dtype=np.float32)


def writer(path, num=25, spec=SPEC, **kwargs):
    settings = {"seed": 0, "producer": "test", "fingerprint": "abc", "chunk_size": 10, **kwargs}
    return StoreWriter(path, spec, num, **settings)


def write_chunks(store, rows):
    for index in store.pending_chunks:
        store.write(index, rows[store.chunk(index)])


def write_all(path, **kwargs):
    with writer(path, **kwargs) as store:
        write_chunks(store, ROWS)
        return store.commit()


def test_rows_come_back_as_written(tmp_path):
    store = write_all(tmp_path / "deep" / "store", extra={"n_step": 3})
    reopened = TransitionStore.open(tmp_path / "deep" / "store", expected=SPEC)
    np.testing.assert_array_equal(reopened.rows, ROWS)
    assert len(reopened) == 25
    assert reopened.spec == SPEC
    assert reopened.metadata == store.metadata
    assert reopened.metadata.extra == {"n_step": 3}
    index = torch.tensor([24, 0, 7, 7])
    np.testing.assert_array_equal(reopened.gather(index), ROWS[index])
    np.testing.assert_array_equal(reopened.gather(index.numpy()), ROWS[index])
    assert sorted(p.name for p in reopened.path.iterdir()) == ["metadata.json", "rows.npy"]
    assert not partial_path(reopened.path).exists()


def test_rows_are_a_plain_numpy_file(tmp_path):
    write_all(tmp_path / "store")
    np.testing.assert_array_equal(np.load(tmp_path / "store" / "rows.npy"), ROWS)


def test_load_maps_what_is_larger_than_the_limit(tmp_path):
    store = write_all(tmp_path / "store")
    assert store.load(limit=ROWS.nbytes).data_ptr() != store.mapped.data_ptr()
    assert store.load(limit=ROWS.nbytes - 1).data_ptr() == store.mapped.data_ptr()


def test_chunks_may_come_in_any_order_and_from_several_writers(tmp_path):
    path = tmp_path / "store"
    first, second = writer(path), writer(path)
    second.write(2, torch.from_numpy(ROWS[20:]))
    first.write(1, ROWS[10:20])
    assert first.finished_chunks == second.finished_chunks == [1, 2]
    assert second.pending_chunks == [0]
    with pytest.raises(DataError, match="lacks 1 of 3 chunks"):
        first.commit()
    second.write(0, ROWS[:10])
    second.close()
    np.testing.assert_array_equal(first.commit().rows, ROWS)


KILLED = """
import sys, time
import numpy as np
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.transition import TransitionSpec
rows = np.load(sys.argv[2])
writer = StoreWriter(sys.argv[1], TransitionSpec(3, 2, 0.97), 25, seed=0, producer="test", fingerprint="abc",
                     chunk_size=10)
for index in (1, 0):
    writer.write(index, rows[writer.chunk(index)])
print("written", flush=True)
time.sleep(60)
"""


def test_a_killed_writer_leaves_its_finished_chunks(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "store"), str(tmp_path / "rows.npy")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"written\n"
        process.send_signal(signal.SIGKILL)
    with pytest.raises(DataError, match=r"store is unfinished: run the command that was writing it again"):
        TransitionStore.open(tmp_path / "store")
    with writer(tmp_path / "store") as store:
        assert store.pending_chunks == [2]
        store.write(2, ROWS[20:])
        np.testing.assert_array_equal(store.commit().rows, ROWS)


def test_a_run_killed_between_the_renames_only_renames(tmp_path):
    write_all(tmp_path / "store")
    (tmp_path / "store").rename(partial_path(tmp_path / "store"))
    (partial_path(tmp_path / "store") / "finished").write_bytes(b"\x01\x01\x01")
    with writer(tmp_path / "store", existing="replace") as store:
        assert store.pending_chunks == []
        np.testing.assert_array_equal(store.commit().rows, ROWS)


def test_a_finished_store_is_not_overwritten_unasked(tmp_path):
    write_all(tmp_path / "store")
    with pytest.raises(ConfigError, match=r"store exists: delete it, or give another path"):
        writer(tmp_path / "store")
    with writer(tmp_path / "store", existing="resume") as store:
        assert store.finished_chunks == [0, 1, 2]
        np.testing.assert_array_equal(store.commit().rows, ROWS)
    with pytest.raises(ConfigError, match="begun with seed=0, now seed=1"):
        writer(tmp_path / "store", existing="resume", seed=1)


def test_replace_leaves_the_old_store_until_commit(tmp_path):
    write_all(tmp_path / "store")
    with writer(tmp_path / "store", existing="replace", seed=1, chunk_size=25) as store:
        store.write(0, ROWS + 1)
        np.testing.assert_array_equal(TransitionStore.open(tmp_path / "store").rows, ROWS)
        np.testing.assert_array_equal(store.commit().rows, ROWS + 1)
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


@pytest.mark.parametrize(
    "change", [{"seed": 1}, {"fingerprint": "x"}, {"num": 26}, {"chunk_size": 9}, {"producer": "y"}]
)
def test_a_partial_store_of_other_settings_is_not_continued(tmp_path, change):
    writer(tmp_path / "store").write(0, ROWS[:10])
    with pytest.raises(ConfigError, match=r"store.partial was begun with"):
        writer(tmp_path / "store", **change)
    assert writer(tmp_path / "store", existing="replace", **change).finished_chunks == []


def test_rows_of_another_size_or_not_finite_are_refused(tmp_path):
    store = writer(tmp_path / "store")
    with pytest.raises(DataError, match=r"chunk 2 of .* needs rows \(5, 9\), got \(10, 9\)"):
        store.write(2, ROWS[:10])
    bad = ROWS[:10].copy()
    bad[3, 4], bad[3, 5], bad[7, 0] = np.nan, np.inf, -np.inf
    with pytest.raises(DataError, match=r"2 of 10 rows of chunk 0 of .* are not finite: test has diverged"):
        store.write(0, bad)
    assert store.finished_chunks == []


def test_another_spec_is_refused_with_both_sizes(tmp_path):
    write_all(tmp_path / "store")
    wanted = TransitionSpec(observation_dim=50, action_dim=2, discount=0.97)
    with pytest.raises(DataError, match=r"has 9 numbers a row \(observation 3,.*but 103 numbers a row"):
        TransitionStore.open(tmp_path / "store", expected=wanted)
    with pytest.raises(DataError, match=r"discount 0\.97.*discount 0\.99"):
        TransitionStore.open(tmp_path / "store", expected=TransitionSpec(3, 2, 0.99))


def test_missing_foreign_and_damaged_stores(tmp_path):
    with pytest.raises(DataError, match="there is no store of transitions at"):
        TransitionStore.open(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"is not a store of transitions: it has no metadata.json"):
        TransitionStore.open(tmp_path)

    path = tmp_path / "store"
    write_all(path)
    content = json.loads((path / "metadata.json").read_text())
    damage = {
        r"is not the metadata of a store": "{",
        r"metadata of a store of trans": "[]",
        r"has format 'other' version 1": json.dumps({**content, "format": "other"}),
        r"version 2, this release reads .* version 1": json.dumps({**content, "format_version": 2}),
        r"is damaged .*'spec'": json.dumps({k: v for k, v in content.items() if k != "spec"}),
        r"is damaged .*surprise": json.dumps({**content, "surprise": 1}),
        r"holds float32 \(25, 9\), its metadata.json says float32 \(26, 9\)": json.dumps(
            {**content, "num_transitions": 26}
        ),
    }
    for message, text in damage.items():
        (path / "metadata.json").write_text(text)
        with pytest.raises(DataError, match=message):
            TransitionStore.open(path)


@pytest.mark.parametrize("size", [0, 60, 500])
def test_truncated_rows(tmp_path, size):
    write_all(tmp_path / "store")
    os.truncate(tmp_path / "store" / "rows.npy", size)
    with pytest.raises(DataError, match=r"rows.npy is truncated or no array of rows"):
        TransitionStore.open(tmp_path / "store")


def test_rows_that_are_pickled_or_missing(tmp_path):
    write_all(tmp_path / "store")
    np.save(tmp_path / "store" / "rows.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="no array of rows"):
        TransitionStore.open(tmp_path / "store")
    (tmp_path / "store" / "rows.npy").unlink()
    with pytest.raises(DataError, match=r"has no rows.npy"):
        TransitionStore.open(tmp_path / "store")


def test_too_small_a_disk_is_found_before_the_first_chunk(tmp_path):
    with pytest.raises(BackendError, match=r"needs another 3600\.00 GB and its disk has .* GB free"):
        writer(tmp_path / "store", num=100 * 10**9, chunk_size=10**9)


@pytest.fixture
def small_disk(tmp_path):
    """A real file system of 1 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True)
    if done.returncode:
        pytest.skip("mounting a small file system needs privileges")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_one_sentence_and_can_be_continued(small_disk):
    rows = np.ones((20_000, SPEC.dim), np.float32)  # 720 kB
    store = writer(small_disk / "store", num=20_000, chunk_size=5_000)
    store.write(0, rows[:5_000])
    (small_disk / "other").write_bytes(bytes(700_000))
    with pytest.raises(
        BackendError, match=r"the disk is full while writing .*store.partial: free some and run"
    ):
        write_chunks(store, rows)
    (small_disk / "other").unlink()
    store.close()
    with writer(small_disk / "store", num=20_000, chunk_size=5_000) as store:
        assert 0 not in store.pending_chunks
        assert len(store.pending_chunks) >= 1
        write_chunks(store, rows)
        np.testing.assert_array_equal(store.commit().rows, rows)


def test_a_full_disk_with_a_failing_system_call(tmp_path, monkeypatch):
    store = writer(tmp_path / "store")
    pwrite = os.pwrite

    def fail(descriptor, data, offset):
        if offset > 200:
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data[:10], offset)  # and short writes before

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(BackendError, match="disk is full"):
        store.write(0, ROWS[:10])
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: pwrite(fd, data[:7], offset))
    store.write(0, ROWS[:10])
    monkeypatch.undo()
    assert store.finished_chunks == [0]
    store.write(1, ROWS[10:20])
    store.write(2, ROWS[20:])
    np.testing.assert_array_equal(store.commit().rows, ROWS)


def test_metadata_survive_json(tmp_path):
    metadata = StoreMetadata(SPEC, 5, 2**62, "p", "f", 3, {"views": 2})
    metadata.write(tmp_path)
    assert StoreMetadata.read(tmp_path) == metadata


def test_gather_takes_microseconds(tmp_path):
    spec = TransitionSpec(observation_dim=100, action_dim=6, discount=0.99)
    rows = torch.randn(20_000, spec.dim)
    with writer(tmp_path / "store", num=20_000, spec=spec, chunk_size=20_000) as out:
        out.write(0, rows)
        store = out.commit()
    index = torch.randint(20_000, (200, 256))
    start = time.perf_counter()
    for batch in index:
        store.gather(batch)
    assert (time.perf_counter() - start) / 200 < 1e-3
    assert torch.equal(store.gather(index[0]), rows[index[0]])
