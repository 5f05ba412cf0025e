"""V-D4RL's own loaders and replay buffer beside ours, on the same files: every transition, and sampled batches.

    python -m tests.interop.compare_vd4rl --repository CHECKOUT --hdf5 FOLDER --npz FOLDER

CHECKOUT is a copy of github.com/conglu1997/v-d4rl. Its loaders and buffers run as they are. What their modules
import for other purposes is replaced by empty modules: the environments that only evaluation makes (envs/), and
tensorflow and scikit-learn where they are missing.
Prints a JSON object with what was compared, and fails at the first difference.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import io
import json
import random
import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np

from lightning_synther.data.replay import PixelReplay
from lightning_synther.data.vd4rl import list_files, load_vd4rl

BATCH, GAMMA, STACK = 256, 0.99, 3
FIELDS = ("observation", "action", "reward", "discount", "next_observation")


def imported(repository: Path) -> tuple[ModuleType, ModuleType, ModuleType]:
    """Their modules drqbc/utils.py, drqbc/numpy_replay_buffer.py and dreamerv2/common/replay.py."""
    for name in ("envs.distracting_control.suite", "envs.fb_mtenv_dmc"):
        sys.modules[name] = MagicMock()
    for name in ("tensorflow", "sklearn", "sklearn.model_selection"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
        sys.modules.setdefault(name, MagicMock())
    sys.path[:0] = [str(repository), str(repository / "drqbc")]
    spec = importlib.util.spec_from_file_location(
        "dreamer_replay", repository / "offlinedv2" / "dreamerv2" / "common" / "replay.py"
    )
    assert spec is not None
    assert spec.loader is not None
    dreamer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dreamer)
    return importlib.import_module("utils"), importlib.import_module("drqbc.numpy_replay_buffer"), dreamer


def compare_hdf5(
    utils: ModuleType, buffers: ModuleType, folder: Path, n_step: int, num_batches: int
) -> dict[str, int]:
    """Their buffer, filled by their loader, against `PixelReplay` on `load_vd4rl`."""
    episodes = load_vd4rl(folder, cache=False)
    size = len(episodes.frames) + STACK * episodes.num_episodes + 100  # never full: no row is overwritten
    buffer = buffers.EfficientReplayBuffer(size, BATCH, n_step, GAMMA, STACK)
    assert [path.name for path in list_files(folder)] == sorted(path.name for path in folder.glob("*.hdf5"))
    with contextlib.redirect_stdout(io.StringIO()) as said:
        utils.load_offline_dataset_into_buffer(folder, buffer, STACK, size)
    assert "Could not load" not in said.getvalue(), said.getvalue()
    ours = PixelReplay(episodes, frame_stack=STACK, n_step=n_step, gamma=GAMMA)
    valid = buffer.valid.nonzero()[0]
    assert len(valid) == ours.num_transitions, (len(valid), ours.num_transitions)
    for start in range(0, len(valid), BATCH):
        theirs = buffer.gather_nstep_indices(valid[start : start + BATCH])
        assert_equal(theirs, ours, np.arange(start, min(start + BATCH, len(valid))))
    for seed in range(num_batches):
        np.random.seed(seed)  # noqa: NPY002 (the buffer draws from it)
        drawn = np.random.choice(valid, size=BATCH)  # noqa: NPY002
        np.random.seed(seed)  # noqa: NPY002
        assert_equal(next(buffer), ours, np.searchsorted(valid, drawn))
    return {"transitions": len(valid), "sampled batches": num_batches, "batch": BATCH, "n_step": n_step}


def assert_equal(theirs: tuple[np.ndarray, ...], ours: PixelReplay, index: np.ndarray) -> None:
    """The five arrays of a batch, bit by bit in our dtypes (theirs are float64 for reward and discount)."""
    batch = ours.gather(index)
    for name, found in zip(FIELDS, theirs, strict=True):
        expected = getattr(batch, name).numpy()
        assert found.shape == expected.shape, name
        np.testing.assert_array_equal(found.astype(expected.dtype), expected, err_msg=name)


def compare_npz(dreamer: ModuleType, folder: Path, num_sequences: int, length: int) -> dict[str, int]:
    """Their offline replay of sequences against our rows."""
    ours = load_vd4rl(folder, image_size=64, cache=False)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        replay = dreamer.OfflineReplay([str(folder)], minlen=length, maxlen=length)
    assert "Could not load" not in said.getvalue(), said.getvalue()
    starts = dict(zip([path.name for path in list_files(folder)], ours.starts.tolist(), strict=True))
    for name, episode in replay._complete_eps.items():
        first = starts[Path(name).name]
        episode["row"] = np.arange(first, first + len(episode["action"]))  # carried along by their slicing
        np.testing.assert_array_equal(episode["is_terminal"], episode["discount"] == 0)
    assert replay.stats["loaded_episodes"] == ours.num_episodes
    assert replay.stats["loaded_steps"] == ours.num_transitions
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    chunks = replay._generate_chunks(length, validation=False)
    for _ in range(num_sequences):
        chunk = next(chunks)
        rows = chunk["row"]
        np.testing.assert_array_equal(chunk["image"].transpose(0, 3, 1, 2), ours.frames[rows])
        for name in ("action", "reward", "discount"):
            np.testing.assert_array_equal(chunk[name], getattr(ours, name)[rows], err_msg=name)
    return {"episodes": ours.num_episodes, "sampled sequences": num_sequences, "length": length}


def main() -> None:
    """Compare what is given."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--hdf5", type=Path)
    parser.add_argument("--npz", type=Path)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--length", type=int, default=10, help="of a sequence for the dreamer's replay")
    args = parser.parse_args()
    utils, buffers, dreamer = imported(args.repository.resolve())
    results = {}
    if args.hdf5:
        for n_step in (1, 3):
            results[f"84px, n-step {n_step}"] = compare_hdf5(utils, buffers, args.hdf5, n_step, args.batches)
    if args.npz:
        results["64px"] = compare_npz(dreamer, args.npz, args.batches, args.length)
    print(json.dumps({"equal": results}, indent=1))


if __name__ == "__main__":
    main()
