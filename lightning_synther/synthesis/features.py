"""Features of every frame of a dataset, computed once and kept on disk."""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_synther.data.disk import full_disk_is_one_sentence, locked
from lightning_synther.data.episodes import Episodes
from lightning_synther.networks.timm_encoder import TimmEncoder
from lightning_synther.progress import Progress

log = logging.getLogger(__name__)

FRAMES_PER_CHUNK = 1_024


def frame_features(
    episodes: Episodes, encoder: TimmEncoder, directory: Path, batch_size: int = 256
) -> NDArray[np.float32]:
    """Features (N, F) of every frame of ``episodes``, mapped from a file in ``directory``.

    The file is named after the data and all that the features depend on, and read again where it is there; no frame
    goes through the network twice, also when a run was interrupted or another one makes them now. Runs on the
    device of ``encoder``.
    """
    digest = hashlib.blake2b(f"{episodes.fingerprint()} {encoder.fingerprint}".encode(), digest_size=8)
    path = directory / f"{digest.hexdigest()}.npy"
    if not path.is_file():
        # A lock of this file alone: features of another backbone need not wait.
        lock = locked(path.with_suffix(".lock"))
        with full_disk_is_one_sentence(path, "free some and run the same command again"), lock:
            if not path.is_file():  # else another process made it while this one waited for the lock
                _write(path, episodes, encoder, batch_size)
    features: NDArray[np.float32] = np.load(path, mmap_mode="c", allow_pickle=False)
    return features


def _write(path: Path, episodes: Episodes, encoder: TimmEncoder, batch_size: int) -> None:
    """Append chunks to a partial file; what is there of it was made by an interrupted run and stays."""
    partial = path.with_suffix(".partial")
    shape = (len(episodes.frames), encoder.num_features)
    row_bytes = 4 * shape[1]
    with partial.open("ab") as file:
        if file.tell() == 0:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            file.flush()
    with partial.open("r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        start = file.tell()
        done = (os.fstat(file.fileno()).st_size - start) // (FRAMES_PER_CHUNK * row_bytes) * FRAMES_PER_CHUNK
        file.seek(start + done * row_bytes)
        file.truncate()
        device = encoder.mean.device
        with Progress("features", shape[0], "frames", done) as progress:
            for first in range(done, shape[0], FRAMES_PER_CHUNK):
                frames = np.array(episodes.frames[first : first + FRAMES_PER_CHUNK])
                parts = torch.from_numpy(frames).split(batch_size)
                rows = torch.cat([encoder.features(part.to(device)).cpu() for part in parts]).numpy()
                file.write(np.ascontiguousarray(rows).tobytes())
                file.flush()
                progress.update(len(rows))
        os.fsync(file.fileno())
    partial.replace(path)


def features_folder(dataset: Path, run_dir: Path) -> Path:
    """Beside the data, where every run finds them; in the run directory where the data cannot be written."""
    cache = dataset / ".cache"
    if os.access(cache if cache.is_dir() else dataset, os.W_OK):
        return cache / "features"
    return run_dir / "features"
