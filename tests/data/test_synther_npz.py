import tracemalloc
import zipfile

import numpy as np
import pytest

from lightning_synther.data import synther_npz
from lightning_synther.data.store import TransitionStore
from lightning_synther.data.store_writer import StoreWriter
from lightning_synther.data.synther_npz import export_npz, import_npz
from lightning_synther.errors import BackendError, ConfigError, DataError
from lightning_synther.transition import TransitionSpec


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(synther_npz, "PIECE", 7)


def make_store(path, terminal):
    spec = TransitionSpec(observation_dim=3, action_dim=2, discount=0.97, terminal=terminal)
    rows = np.random.default_rng(0).standard_normal((20, spec.dim), dtype=np.float32)
    if terminal:
        rows[:, -1] = np.arange(20) % 3 == 0
    with StoreWriter(path, spec, 20, seed=0, producer="test", fingerprint="") as writer:
        writer.write(0, rows)
        return writer.commit()


def save(path, num=10, drop=(), **changes):
    arrays = {
        "observations": np.ones((num, 3), np.float32),
        "actions": np.ones((num, 2), np.float32),
        "rewards": np.ones(num, np.float32),
        "next_observations": np.ones((num, 3), np.float32),
        "terminals": np.zeros(num, np.float32),
        **changes,
    }
    np.savez(path, **{name: array for name, array in arrays.items() if name not in drop})
    return path


@pytest.mark.parametrize("terminal", [True, False])
def test_a_round_trip_gives_the_same_rows(tmp_path, terminal):
    store = make_store(tmp_path / "store", terminal)
    path = export_npz(store, tmp_path / "out" / "samples.npz")
    again = import_npz(path, tmp_path / "again", discount=0.97)
    assert again.spec == store.spec
    np.testing.assert_array_equal(again.rows, store.rows)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["samples.npz"]


@pytest.mark.parametrize("terminal", [True, False])
def test_numpy_reads_the_export(tmp_path, terminal):
    store = make_store(tmp_path / "store", terminal)
    with np.load(export_npz(store, tmp_path / "samples.npz"), allow_pickle=False) as file:
        assert set(file.files) == {"observations", "actions", "rewards", "next_observations", "terminals"}
        assert {array.dtype for array in map(file.__getitem__, file.files)} == {np.dtype(np.float32)}
        np.testing.assert_array_equal(file["observations"], store.rows[:, :3])
        np.testing.assert_array_equal(file["actions"], store.rows[:, 3:5])
        np.testing.assert_array_equal(file["rewards"], store.rows[:, 5])
        np.testing.assert_array_equal(file["next_observations"], store.rows[:, 6:9])
        expected = store.rows[:, 9] if terminal else np.zeros(20)
        np.testing.assert_array_equal(file["terminals"], expected)


def test_files_of_numpy_are_read_whatever_their_numbers(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        "observations": generator.standard_normal((30, 3)),
        "actions": generator.standard_normal((30, 2)).astype(np.float16),
        "rewards": generator.integers(5, size=(30, 1)),
        "next_observations": generator.standard_normal((30, 3)),
        "terminals": generator.integers(2, size=30).astype(bool),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    store = import_npz(tmp_path / "a.npz", tmp_path / "store")
    assert store.spec == TransitionSpec(3, 2, 0.99, terminal=True)
    columns = [array.reshape(30, -1).astype(np.float32) for array in arrays.values()]
    np.testing.assert_array_equal(store.rows, np.concatenate(columns, axis=1))


def test_terminals_decide_about_their_column_unless_told(tmp_path):
    assert import_npz(save(tmp_path / "a.npz"), tmp_path / "a").spec.terminal is False
    assert import_npz(tmp_path / "a.npz", tmp_path / "b", terminal=True).spec.terminal is True
    ends = save(tmp_path / "c.npz", terminals=np.ones(10))
    with pytest.raises(DataError, match=r"c.npz has terminals that are not 0: import it with terminal=True"):
        import_npz(ends, tmp_path / "c", terminal=False)


def test_an_import_is_not_repeated_unasked(tmp_path):
    path = save(tmp_path / "a.npz")
    import_npz(path, tmp_path / "store")
    with pytest.raises(ConfigError, match="exists"):
        import_npz(path, tmp_path / "store")
    assert len(import_npz(path, tmp_path / "store", existing="resume")) == 10
    other = save(tmp_path / "b.npz", rewards=np.zeros(10, np.float32))
    with pytest.raises(ConfigError, match="begun with fingerprint="):
        import_npz(other, tmp_path / "store", existing="resume")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": ["terminals"]}, "has no array terminals"),
        ({"rewards": np.ones(9)}, r"holds rewards of shape \(9,\) beside .*\(10, 3\): expected \(10,\)"),
        ({"rewards": np.ones((10, 10))}, r"holds rewards of shape \(10, 10\)"),
        (
            {"next_observations": np.ones((10, 4))},
            r"next_observations of shape \(10, 4\).*expected \(10, 3\)",
        ),
        ({"observations": np.ones(10)}, r"holds observations of shape \(10,\)"),
        ({"num": 0}, r"observations of shape \(0, 3\).*with at least one row"),
        ({"actions": np.array([[{}] * 2] * 10)}, r"actions.npy in .* has dtype object: only arrays of plain"),
        ({"actions": np.array([["a"] * 2] * 10)}, r"actions.npy in .* has dtype <U1"),
        ({"actions": np.asfortranarray(np.ones((10, 2)))}, "stored column by column"),
        ({"rewards": np.full(10, np.nan)}, "are not finite"),
    ],
)
def test_files_of_another_layout(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        import_npz(save(tmp_path / "a.npz", **changes), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_damaged_files(tmp_path):
    with pytest.raises(DataError, match=r"a.npz does not exist"):
        import_npz(tmp_path / "a.npz", tmp_path / "store")
    path = save(tmp_path / "a.npz")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match="is no NPZ file, or truncated"):
        import_npz(path, tmp_path / "store")
    changed = bytearray(content)
    changed[content.index(np.ones((10, 3), np.float32).tobytes())] ^= 1
    path.write_bytes(bytes(changed))
    with pytest.raises(DataError, match=r"observations.* in .* is damaged .*CRC"):
        import_npz(path, tmp_path / "store")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("observations.npy", b"no array at all")
    with pytest.raises(DataError, match=r"observations.npy in .* is damaged"):
        import_npz(path, tmp_path / "store")


def test_exports_are_whole_or_not_there(tmp_path, monkeypatch):
    store = make_store(tmp_path / "store", terminal=False)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(synther_npz, "_write_array", full)
    with pytest.raises(
        BackendError, match=r"the disk is full while writing .*a.npz: free some and export again"
    ):
        export_npz(store, tmp_path / "a.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["store"]
    monkeypatch.undo()
    export_npz(store, tmp_path / "a.npz")
    with pytest.raises(ConfigError, match=r"a.npz exists: give another path, or overwrite=True"):
        export_npz(store, tmp_path / "a.npz")
    export_npz(store, tmp_path / "a.npz", overwrite=True)


def test_a_store_of_an_import_opens_with_its_spec(tmp_path):
    store = import_npz(save(tmp_path / "a.npz"), tmp_path / "store", discount=0.9)
    assert TransitionStore.open(tmp_path / "store", expected=store.spec).spec.discount == 0.9


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(synther_npz, "PIECE", 2048)
    spec = TransitionSpec(observation_dim=100, action_dim=6, discount=0.99)
    num = 2048 * 20  # 34 MB
    with StoreWriter(
        tmp_path / "store", spec, num, seed=0, producer="", fingerprint="", chunk_size=2048
    ) as writer:
        for index in writer.pending_chunks:
            writer.write(index, np.full((2048, spec.dim), index, np.float32))
        store = writer.commit()
    tracemalloc.start()
    again = import_npz(export_npz(store, tmp_path / "a.npz"), tmp_path / "again")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12e6
    assert (again.path / "rows.npy").read_bytes() == (store.path / "rows.npy").read_bytes()
